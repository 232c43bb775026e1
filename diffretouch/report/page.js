"use strict";
// Sliders: a strip's own pictures are shown large, so nothing is loaded and nothing is stored twice.
for (const sheet of document.querySelectorAll(".sheet")) {
  const view = sheet.querySelector(".view"), readout = sheet.querySelector(".readout");
  const source = sheet.querySelector(".source img"), axes = [...sheet.querySelectorAll(".axis")];
  let shown = null;
  const paint = picture => { view.src = picture.src; view.dataset.name = view.alt = picture.dataset.name; };
  const show = (axis, index) => {
    for (const other of axes) {
      const range = other.querySelector("input"), pictures = other.querySelectorAll(".strip img");
      const at = other === axis ? index : pictures.length >> 1;
      range.value = at;
      other.classList.toggle("active", other === axis);
      pictures.forEach((picture, k) => picture.classList.toggle("on", other === axis && k === at));
      other.querySelector("output").textContent = "asked " + pictures[at].dataset.asked + ", measured " + pictures[at].dataset.measured;
      if (other === axis) {
        shown = pictures[at];
        paint(shown);
        readout.textContent = axis.dataset.attribute + " " + shown.dataset.asked;
      }
    }
  };
  for (const axis of axes) {
    axis.querySelector("input").addEventListener("input", event => show(axis, Number(event.target.value)));
    axis.querySelectorAll(".strip img").forEach((picture, k) => picture.addEventListener("click", () => show(axis, k)));
  }
  if (axes.length) show(axes[0], axes[0].querySelectorAll(".strip img").length >> 1);
  const hold = sheet.querySelector(".hold");
  const release = () => { if (shown) paint(shown); };
  hold.addEventListener("pointerdown", () => { view.src = source.src; });
  for (const end of ["pointerup", "pointerleave", "pointercancel", "blur"]) hold.addEventListener(end, release);
  hold.addEventListener("keydown", event => { if (event.key === " " || event.key === "Enter") view.src = source.src; });
  hold.addEventListener("keyup", release);
}
// Loupe: flip between the versions of one photo in the same place.
const loupe = document.getElementById("loupe"), large = loupe.querySelector("img"), label = loupe.querySelector("b");
let reel = [], at = 0;
const turn = to => {
  at = (to + reel.length) % reel.length;
  large.src = reel[at].src;
  large.alt = reel[at].dataset.name;
  label.textContent = reel[at].closest(".sheet").dataset.photo + " · " + reel[at].dataset.name;
};
const open = picture => {
  const sheet = picture.closest(".sheet");
  reel = [...sheet.querySelectorAll(".frame img")];
  turn(reel.indexOf(picture));
  loupe.showModal();
};
document.addEventListener("click", event => { if (event.target.matches(".frame img")) open(event.target); });
document.addEventListener("keydown", event => {
  if (loupe.open && event.key === "ArrowRight") turn(at + 1);
  else if (loupe.open && event.key === "ArrowLeft") turn(at - 1);
  else if (!loupe.open && event.key === "Enter" && document.activeElement.matches(".frame img")) open(document.activeElement);
});
loupe.addEventListener("click", () => loupe.close());
