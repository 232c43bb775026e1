"""The one size that all pictures of a photo are brought to."""

from __future__ import annotations

from diffretouch.errors import PhotoError

Size = tuple[int, int]
"""Height and width."""


def common_size(own: Size, sizes: dict[str, Size], kind: str, short_edge: int | None) -> Size:
    """The size that all of the photo's pictures are brought to; PhotoError where they are not of one shape.

    Without `short_edge` all have one size. With it smaller ones (PPR10K's 360p pack beside its RAWs) fit too, when
    their short edge is as long as that and their long edge is right to within a pixel at decoded size.
    """
    what = "the RAW decodes to" if kind == "raw" else "the rendered input is"
    for name, (height, width) in sizes.items():
        if not _fits((height, width), own, short_edge):
            turned = _fits((width, height), own, short_edge)
            word, kind = ("orientation", "orientation") if turned else ("size mismatch", "size")
            raise PhotoError(f"{word}: {name} is {width}x{height}, but {what} {own[1]}x{own[0]}", kind, name)
    return target_size(own, min(sizes.values(), default=own), short_edge)


def _fits(size: Size, own: Size, short_edge: int | None) -> bool:
    if short_edge is None or min(size) < short_edge - 1:
        return size == own
    down, across = (edge * short_edge / min(own) for edge in own)
    scale = short_edge / min(size)
    return abs(size[0] * scale - down) <= 1 and abs(size[1] * scale - across) <= 1


def target_size(own: Size, smallest: Size, short_edge: int | None) -> Size:
    """The smaller of the two sizes, reduced to the short edge."""
    height, width = min(own, smallest)
    if short_edge is None or min(height, width) <= short_edge:
        return height, width
    scale = short_edge / min(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))
