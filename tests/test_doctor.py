"""The doctor: every finding is true, says what to type, and nothing is changed by looking."""

from __future__ import annotations

import fcntl
import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch
import yaml
from packaging.requirements import Requirement

from diffretouch.config import Params
from diffretouch.doctor.corpora import check_corpora
from diffretouch.doctor.disk import check_links, links
from diffretouch.doctor.finding import Finding
from diffretouch.doctor.machine import Gpu, check_machine, unet_parameters
from diffretouch.doctor.versions import CLASHES, check_versions
from diffretouch.doctor.weights import FILE, QUICK_BYTES, check_weights
from flows import doctor, doctor_dvc, doctor_prefect
from tests import model_project
from tests.model_project import ROOT, add_photo, dvc
from tests.test_house import PROJECT


def parameters(profile: str = "cpu", **sections: dict) -> Params:
    tree = yaml.safe_load((ROOT / f"profiles/{profile}.yaml").read_text())
    for name, values in sections.items():
        tree[name] |= values
    return Params.model_validate(tree)


def only(found: list[Finding] | Iterator[Finding], area: str) -> Finding:
    matching = [finding for finding in found if finding.area == area]
    assert len(matching) == 1, matching
    return matching[0]


def test_what_is_installed_fits() -> None:
    assert [finding.level for finding in check_versions()] == ["good"]


@pytest.mark.parametrize(
    ("package", "have"), [("fastapi", "0.160.0"), ("sqlalchemy", "2.1.0"), ("prefect", "3.9.0"), ("torch", "1.0")]
)
def test_versions_that_clash_are_named_with_why_and_the_cure(package: str, have: str) -> None:
    installed = {package: have}
    found = check_versions(PROJECT["dependencies"], lambda name: installed.get(name) or version(name))
    fault = only(found, "packages")
    assert fault.level == "fault" and f"{package} {have}" in fault.what and CLASHES.get(package, "") in fault.what
    wanted = Requirement(fault.mend.partition("'")[2].rstrip("'"))
    assert wanted.name == package and wanted.specifier.contains(version(package), prereleases=True)


def test_a_missing_package_and_an_old_python_are_faults() -> None:
    def installed(name: str) -> str:
        if name == "tifffile":
            raise PackageNotFoundError(name)
        return version(name)

    found = check_versions(PROJECT["dependencies"], installed, (3, 9, 2))
    assert "tifffile is missing" in only(found, "packages").what
    assert "3.9.2" in only(found, "python").what


def test_the_clashes_are_those_that_are_pinned_with_a_reason() -> None:
    listed = (ROOT / "pyproject.toml").read_text().partition("dependencies = [")[2].partition("]")[0]
    noted = re.findall(r'^ +"(\w+)[^"]*", # ', listed, re.M)
    assert set(CLASHES) == set(noted)


@pytest.mark.parametrize(("profile", "count"), [("fivek", 840_471_688), ("cpu", None)])
def test_the_unet_is_counted_as_diffusers_builds_it(profile: str, count: int | None) -> None:
    from diffretouch.model.build import new_unet

    train = parameters(profile).train
    if count is None:
        count = sum(weight.numel() for weight in new_unet(train).parameters())
    assert unet_parameters(train) == count


def test_memory_is_held_against_what_training_takes_at_least() -> None:
    real = parameters("fivek", runtime={"device": "auto", "processes": 1})
    small = check_machine(real, [Gpu("small", 12 * 2**30)])
    # a CPU build of torch is the first thing to mend on a machine with a GPU
    area = "GPU" if "+cpu" in torch.__version__ else "memory"
    assert only(small, area).level == "fault" and len(small) == 1
    on_cpu = parameters("fivek", runtime={"device": "cpu", "processes": 1})
    assert only(check_machine(on_cpu, [], ram=8 * 2**30), "memory").level == "fault"
    assert "15.7 GiB" in only(check_machine(on_cpu, [], ram=64 * 2**30), "memory").what
    assert only(check_machine(parameters(), [], ram=8 * 2**30), "memory").level == "good"
    asked = parameters(runtime={"device": "cuda"})
    assert only(check_machine(asked, []), "GPU").level == "fault"


def test_compiling_wants_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    asked = parameters(runtime={"compile": True, "device": "cpu"})
    found = only(check_machine(asked, [], ram=64 * 2**30), "compiler")
    assert found.level == "fault" and "neither g++ nor clang++" in found.what
    (tmp_path / "clang++").touch(mode=0o755)
    areas = [finding.area for finding in check_machine(asked, [], ram=64 * 2**30)]
    assert "compiler" not in areas and "memory" in areas


def test_eight_bit_averages_want_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffretouch.doctor.machine.find_spec", lambda name: None)
    found = only(check_machine(parameters(train={"optimiser": "adamw8bit"}), [], ram=64 * 2**30), "packages")
    assert found.level == "fault" and ".[adamw8bit]" in found.mend
    assert "packages" not in [finding.area for finding in check_machine(parameters(), [], ram=64 * 2**30)]


def test_weights_are_found_and_hashed_and_large_ones_only_when_asked(tmp_path: Path) -> None:
    file, vae = tmp_path / "base/unet" / FILE, tmp_path / "base/vae" / FILE
    for path in (file, vae):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"weights")
    good = hashlib.sha256(b"weights").hexdigest()

    def check(sha256: str, source: str = "base", full: bool = False) -> Finding:
        autoencoder = parameters().train.autoencoder.model_dump() | {"sha256": good}
        params = parameters(train={"start": {"source": source, "sha256": sha256}, "autoencoder": autoencoder})
        start, own = check_weights(params, tmp_path, full=full)
        assert own.level == ("good" if source == "base" else "fault")
        return start

    assert check(good).level == "good"
    wrong = check("0" * 64)
    assert wrong.level == "fault" and good[:12] in wrong.what
    gone = check(good, "nobody/nothing")
    assert gone.level == "fault" and gone.mend == "hf download nobody/nothing"
    os.truncate(file, QUICK_BYTES + 1)  # a hole: no byte of it is written
    assert check(good).level == "note" and check(good, full=True).level == "fault"
    assert only(check_weights(parameters(), tmp_path, full=False), "weights").level == "good"


def test_the_file_of_weights_is_the_models_own() -> None:
    from diffretouch.model.weights import WEIGHTS_FILE

    assert FILE == WEIGHTS_FILE


def test_links_are_tried_and_leave_nothing(tmp_path: Path) -> None:
    cache, tree = tmp_path / "cache", tmp_path / "tree"
    cache.mkdir()
    tree.mkdir()
    assert {"hardlink", "symlink"} <= set(links(cache, tree))
    assert not list(cache.iterdir()) and not list(tree.iterdir())
    assert check_links(cache, tree, ["hardlink"]).level == "note"
    assert check_links(cache, tree, ["symlink"]).level == "good"
    if Path("/dev/shm").is_dir() and Path("/dev/shm").stat().st_dev != tree.stat().st_dev:
        other = Path("/dev/shm") / f"doctor-{os.getpid()}"
        other.mkdir()
        try:
            assert "hardlink" not in links(other, tree)
            assert check_links(other, tree, ["hardlink"]).level == "fault"
        finally:
            other.rmdir()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_project.make(tmp_path_factory.mktemp("doctor") / "project")


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built.parent, tmp_path / "lab")
    return tmp_path / "lab" / built.name


def test_corpora_are_counted_and_their_licences_told(project: Path) -> None:
    params = parameters()
    params = params.model_copy(update={"datasets": ("fivek",)})
    found = check_corpora(params, project)
    assert "toy, real: 3 whole photos" in found[0].what
    assert "Corpus: CC0" in only(found, "licence fivek").what
    (project / "data/fivek/tiff16_c/a0002-toy.tif").unlink()
    lack = next(finding for finding in check_corpora(params, project) if "lack files" in finding.what)
    assert lack.level == "fault" and "a0002-toy" in lack.what  # a third is more than a fifth
    shutil.rmtree(project / "data/fivek")
    gone = check_corpora(params, project)
    assert [finding.level for finding in gone] == ["fault"] and "dvc pull data/fivek" in gone[0].mend


def test_dvcs_remote_locks_and_corpora(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_dvc, "STATUS_S", 120)

    def look() -> list[Finding]:
        return doctor_dvc.check_dvc(project, full=False)

    found = look()
    assert only(found, "DVC remote").level == "good"
    assert only(found, "DVC lock").level == "good"
    assert only(found, "data.dvc").level == "good"
    assert only(found, "models").mend == "python -m flows.retrain"
    (project.parent / "store").rmdir()
    assert only(look(), "DVC remote").level == "fault"


def test_who_holds_dvcs_locks(tmp_path: Path) -> None:
    record = tmp_path / "rwlock"
    child = subprocess.Popen(["true"])
    child.wait()
    record.write_text(json.dumps({"work/train": {"write": {"pid": child.pid, "cmd": "dvc repro"}}}))
    dead = only(doctor_dvc._locks(tmp_path), "DVC lock")
    assert dead.level == "note" and str(child.pid) in dead.what and "the next dvc forgets them" in dead.what
    record.write_text(json.dumps({"data": {"read": [{"pid": os.getpid(), "cmd": "dvc repro"}]}}))
    alive = only(doctor_dvc._locks(tmp_path), "DVC lock")
    assert alive.level == "note" and str(os.getpid()) in alive.what
    record.write_text('{"work": {')
    assert "half written" in only(doctor_dvc._locks(tmp_path), "DVC lock").what
    record.unlink()
    with (tmp_path / "lock").open("w") as held:
        held.write("4711\n")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "process 4711" in next(iter(doctor_dvc._locks(tmp_path))).what


def test_changed_data_are_a_fault(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_dvc, "STATUS_S", 120)
    add_photo(project / "data/fivek", "a0003-new")
    fault = only(doctor_dvc._corpora(project), "data.dvc")
    assert fault.level == "fault" and fault.mend == "dvc add data (adopt them) or dvc checkout data.dvc (go back)"
    dvc(project, "add", "-q", "data")
    assert only(doctor_dvc._corpora(project), "data.dvc").level == "good"
    shutil.rmtree(project / ".dvc/cache/files")
    lost = only(doctor_dvc._corpora(project), "data.dvc")
    assert lost.level == "note" and lost.mend.startswith("dvc commit data.dvc")
    dvc(project, "commit", "-q", "data.dvc")
    assert only(doctor_dvc._corpora(project), "data.dvc").level == "good"
    shutil.rmtree(project / "data")
    assert only(doctor_dvc._corpora(project), "data.dvc").mend.startswith("dvc pull data.dvc")


class Server(http.server.BaseHTTPRequestHandler):
    """Answers as a Prefect of another version does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'"3.0.1"')

    def log_message(self, *_: object) -> None:
        pass


def test_prefects_server_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    other = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{other.server_port}/api"
    with temporary_settings({PREFECT_API_URL: url}):
        assert "is Prefect 3.0.1" in only(doctor_prefect.check_prefect(ROOT), "Prefect").what
    other.shutdown()
    other.server_close()
    with temporary_settings({PREFECT_API_URL: url}):
        dead = only(doctor_prefect.check_prefect(ROOT), "Prefect")
    assert dead.level == "fault" and "prefect server start" in dead.mend
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert "starts its own" in only(doctor_prefect.check_prefect(ROOT), "Prefect").what


def test_the_whole_is_printed_with_cures_and_changes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path for path in project.rglob("*") if ".dvc/tmp" not in str(path))
    code = doctor.main(["--root", str(project)])
    printed = capsys.readouterr().out
    assert code == 0 and "FAULT" not in printed, printed
    assert "toy, real: 3 whole photos" in printed and "-> python -m flows.retrain" in printed
    assert sorted(path for path in project.rglob("*") if ".dvc/tmp" not in str(path)) == before
    found = doctor.examine(project, full=False)
    assert {"note", "good"} == {finding.level for finding in found}
    assert [finding for finding in found if bool(finding.mend) != (finding.level != "good")] == []
    (project / "params.yaml").write_text("datasets: 3\n")
    assert doctor.main(["--root", str(project)]) == 1
    assert re.search(r"FAULT +params.yaml.*\n.*-> diffretouch profile cpu", capsys.readouterr().out)


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        doctor.main(["--help"])
    assert exit_.value.code == 0
    assert "exit codes" in capsys.readouterr().out
