"""Retraining on a small real project: git, DVC, a remote, Prefect's server; the judge compares two numbers."""

from __future__ import annotations

import contextvars
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pandas as pd
import pytest
import yaml

from diffretouch.config import load
from diffretouch.errors import ConfigError, UserError
from diffretouch.gating import Verdict
from flows import announce, approval, clone, family, git_process, registry, retrain_command, rollback, slots
from tests import model_project, tiny_project
from tests.model_project import ROOT, add_photo, dvc, run, set_steps
from tests.small_project import until

HOSTILE = "a0009-$(touch hacked); 'x' `touch hacked`"

CRASH = """
import os, sys
from flows import publish, retrain, retrain_command
from tests import test_retrain
retrain.gate = test_retrain.by_quality
def crash(*words):
    os._exit(9)
where, name = sys.argv[1].split(".")
setattr(sys.modules[f"flows.{where}"], name, crash)
retrain_command.main(sys.argv[2:])
"""
"""At which of these the process dies: before anything but files is published, and when the clone has its tags."""


def by_quality(dataset: str, challenger: Path, champion: Path | None, out: Path) -> Verdict:
    """The judge of these tests: what `evaluate` wrote on either side."""
    ours, theirs = (
        None if tree is None else int((tree / "work/evaluate" / dataset / "quality").read_text())
        for tree in (challenger, champion)
    )
    assert ours is not None
    decision = "promote" if theirs is None or ours > theirs else "equal" if ours == theirs else "keep"
    summary = f"{ours} against {theirs}"
    out.mkdir(parents=True, exist_ok=True)
    (out / "verdict.json").write_text(json.dumps({"decision": decision, "summary": summary}))
    return Verdict(decision, summary, (), dataset, "research")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    # late: `flows` sets the environment that Prefect reads at its first import
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=300):
        yield str(PREFECT_API_URL.value())


@pytest.fixture(autouse=True)
def _judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from flows import retrain

    monkeypatch.setattr(retrain, "gate", by_quality)
    monkeypatch.setenv(announce.COMMAND, "")  # which --notify sets for the process
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_project.make(tmp_path_factory.mktemp("retrain") / "project", steps=500)


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """No model yet; the remote is the folder beside it."""
    shutil.copytree(made.parent, tmp_path / "lab")
    return tmp_path / "lab" / made.name


def retrained(root: Path, *words: str) -> int:
    return retrain_command.main(["--root", str(root), "--dataset", "fivek", *words])


def tags(root: Path) -> list[str]:
    return sorted(tag.name for tag in git_process.tags(root))


def clones(root: Path) -> list[str]:
    return sorted(path.name for path in (root / clone.PLACE).glob("fivek-*"))


@pytest.mark.slow
def test_better_is_promoted_worse_and_equal_are_not_and_rollback_restores(
    server: str, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inbox = tmp_path / "in; touch hacked $(touch hacked)"
    told = tmp_path / "told.json"
    teller = [sys.executable, "-c", "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())", str(told)]

    assert retrained(project, "--notify", *teller) == 0
    assert "fivek: promote: 500 against None (model-fivek@v1.0.0 is in use)" in capsys.readouterr().out
    assert json.loads(told.read_text())[0]["release"] == "model-fivek@v1.0.0"
    assert clones(project) == [] and run(project, "git", "status", "--porcelain") == ""
    assert any((project.parent / "store/files").rglob("*"))

    assert retrained(project) == 0  # nothing is new
    assert "fivek: equal: the same model, byte for byte, is in use: model-fivek@v1.0.0" in capsys.readouterr().out

    run(project, "git", "merge", "-q", "retrain")
    set_steps(project, 400, "fewer steps")
    assert retrained(project) == 0
    assert "fivek: keep: 400 against 500" in capsys.readouterr().out
    assert tags(project) == ["model-fivek#prod#1", "model-fivek@v1.0.0"]

    set_steps(project, 500, "as before, with more photos")
    for photo in ("a0007-new", HOSTILE):
        add_photo(inbox, photo)
    assert retrained(project, "--inbox", str(inbox)) == 0
    assert "fivek: equal: 500 against 500" in capsys.readouterr().out
    assert tags(project) == ["model-fivek#prod#1", "model-fivek@v1.0.0"] and clones(project) == []

    set_steps(project, 600, "more steps")
    assert retrained(project, "--inbox", str(inbox)) == 0
    assert "fivek: promote: 600 against 500 (model-fivek@v2.0.0 is in use)" in capsys.readouterr().out
    assert registry.verdict(project, registry.in_use(project, "fivek")) == {  # type: ignore[arg-type]
        "decision": "promote",
        "summary": "600 against 500",
    }
    dvc(project, "artifacts", "get", "-q", str(project), "model-fivek", "--stage", "prod", "-o", str(tmp_path / "new"))
    assert (tmp_path / "new/weights").read_text() == "600 5"  # with both new photos

    # people take it over when they like
    assert not (project / "data/fivek/dng" / f"{HOSTILE}.dng").exists()
    run(project, "git", "merge", "-q", "retrain")
    dvc(project, "checkout", "-q")
    assert (project / "data/fivek/dng" / f"{HOSTILE}.dng").exists()

    assert rollback.main(["fivek", "--root", str(project), "--out", str(tmp_path / "old")]) == 0
    assert (tmp_path / "old/weights").read_text() == "500 3"

    capsys.readouterr()
    assert retrained(project) == 0  # the next Monday: the very model that was rolled back
    said = "is model-fivek@v2.0.0, which is not in use any more: `python -m flows.rollback fivek --to v2.0.0`"
    assert said in capsys.readouterr().out
    assert registry.in_use(project, "fivek").version == "v1.0.0"  # type: ignore[union-attr]
    pages = sorted(path.parent.name.partition("-")[0] for path in (project / "work/verdicts").rglob("verdict.json"))
    assert len(pages) >= 3 and set(pages) == {"fivek"}  # of every challenger, promoted or not
    assert not list(tmp_path.rglob("hacked")) and not Path("hacked").exists()


@pytest.mark.alone
@pytest.mark.slow
def test_new_photos_are_decoded_learned_from_and_judged_by_the_real_gate(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The project itself, profile tiny: RAWs and experts' pictures from an inbox to a verdict."""
    from diffretouch.gating import judge
    from flows import retrain

    monkeypatch.setattr(
        retrain, "gate", lambda dataset, new, old, out: judge(load(new / "params.yaml"), dataset, new, old, out)
    )
    root, inbox = tmp_path / "lab" / "project", tmp_path / "inbox"
    tiny_project.write_project(root)
    assert retrained(root) == 0
    assert "fivek: promote: " in capsys.readouterr().out and tags(root) == ["model-fivek#prod#1", "model-fivek@v1.0.0"]
    verdict = registry.verdict(root, registry.in_use(root, "fivek"))  # type: ignore[arg-type]
    assert verdict is not None and verdict["decision"] == "promote" and verdict["photos"] > 0

    source = next(path for path in sorted((root / "data/fivek/dng").iterdir()) if path.name < "a4501")
    for path in (root / "data/fivek").rglob(f"{source.stem}.*"):
        target = inbox / path.relative_to(root / "data/fivek").with_stem("a0999-new")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    shutil.copyfile(root / "data/fivek/corpus.yaml", inbox / "corpus.yaml")
    run(root, "git", "merge", "-q", "retrain")
    dvc(root, "checkout", "-q")
    kept, pages = [], set((root / "work/verdicts").iterdir())
    monkeypatch.setattr(retrain, "_end", lambda place, outcome: (kept.append(place), outcome)[1])
    assert retrained(root, "--inbox", str(inbox)) == 0
    said = capsys.readouterr().out
    assert any(f"fivek: {decision}: " in said for decision in ("promote", "keep", "equal"))  # the model learned nothing
    assert "byte for byte" not in said
    rows = pd.read_parquet(kept[0] / "work/decode/fivek/manifest.parquet").set_index("photo_id")
    assert rows.loc["a0999-new", "status"] == "ok" and rows.loc["a0999-new", "split"] in ("train", "val")
    (page,) = set((root / "work/verdicts").iterdir()) - pages
    assert "challenger" in (page / "verdict.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("point", ["publish.tag", "publish.bring"])
def test_a_crash_between_push_and_tag_is_repaired_by_running_again(
    server: str, project: Path, capsys: pytest.CaptureFixture[str], point: str
) -> None:
    words = ["--root", str(project), "--dataset", "fivek"]
    environment = os.environ | {"PREFECT_API_URL": server, "PYTHONPATH": str(ROOT)}
    died = subprocess.run(
        [sys.executable, "-c", CRASH, point, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert died.returncode == 9, died.stderr
    assert any((project.parent / "store/files").rglob("*"))  # pushed
    assert tags(project) == [] and git_process.commit_of(project, "retrain") is None  # and nothing else
    assert len(clones(project)) == 1
    calls = project / clone.PLACE / clones(project)[0] / "calls.log"
    calls.unlink()
    kept = threading.Thread(target=_follow, args=(calls, seen := []))
    kept.start()
    assert retrained(project) == 0
    kept.join(30)
    assert "train@fivek" not in "".join(
        seen
    )  # DVC's cache answers; only decode, which keeps its own ledger, looks again
    assert "model-fivek@v1.0.0 is in use" in capsys.readouterr().out
    assert tags(project) == ["model-fivek#prod#1", "model-fivek@v1.0.0"] and clones(project) == []


def _follow(calls: Path, seen: list[str]) -> None:
    """Note what stages write until their clone is gone."""
    while calls.parent.exists():
        if calls.exists():
            seen.append(calls.read_text())
        time.sleep(0.05)


@pytest.mark.slow
def test_a_person_may_say_no_and_later_yes(
    server: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held = list[str]()
    monkeypatch.setattr(slots, "needed", lambda *_: {"gpu:judge": 1})

    def free() -> None:
        """Nothing is held while a person is waited for."""
        with slots.held({"gpu:judge": 1}, "another", held.append):
            held.append("free")

    answers = threading.Thread(target=contextvars.copy_context().run, args=(_answer, free, False, True))
    answers.start()
    assert retrained(project, "--approval", "120") == 0
    assert "fivek: waiting: not approved: 500 against None" in capsys.readouterr().out
    assert tags(project) == [] and len(clones(project)) == 1
    assert retrained(project, "--approval", "120") == 0
    answers.join(30)
    assert held == ["free", "free"]
    assert "model-fivek@v1.0.0 is in use" in capsys.readouterr().out


@pytest.mark.alone
@pytest.mark.slow
def test_a_promotion_that_nobody_answers_puts_nothing_in_use(
    server: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert retrained(project, "--approval", "5") == 1
    said = capsys.readouterr().err
    assert "nobody answered within 5 s. 500 against None" in said and f"{clones(project)[0]}. Run the same" in said
    assert tags(project) == [] and git_process.commit_of(project, "retrain") is None


def _answer(asked: Callable[[], None], *decisions: bool) -> None:
    """What a person does in Prefect's page, once for each pause."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    paused = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))
    with get_client(sync_client=True) as client:
        for decision in decisions:
            end = time.monotonic() + 300
            while not (runs := client.read_flow_runs(flow_run_filter=paused, sort=FlowRunSort.ID_DESC, limit=9)):
                assert time.monotonic() < end, "no run paused"
                time.sleep(0.5)
            asked()
            client.resume_flow_run(runs[0].id, run_input={"promote": decision, "words": "seen"})
            time.sleep(3)


@pytest.mark.slow
def test_a_stage_that_fails_is_named_and_the_clone_kept_and_the_lab_is_told(
    server: str, project: Path, block: tuple[str, list[dict[str, str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    set_steps(project, 13, "an unlucky number")
    assert retrained(project, "--notify-block", block[0]) == 1
    (told,) = block[1]
    assert told["subject"] == "retrain: fivek failed" and "refuses 13 steps" in told["body"]
    said = capsys.readouterr().err
    assert "train@fivek failed" in said and "refuses 13 steps" in said and f"{clones(project)[0]}. Run the same" in said
    assert tags(project) == []


@pytest.fixture
def block(server: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A notification block of the server, and what it has brought to a page of the lab's."""
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    told = list[dict[str, str]]()

    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200 if "refused" not in self.path else 500)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    page = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=page.serve_forever, daemon=True).start()
    words = {"subject": "{{subject}}", "body": "{{body}}"}
    for name in ("lab", "refused"):
        url = f"http://127.0.0.1:{page.server_port}/{name}"
        CustomWebhookNotificationBlock(name=name, url=url, json_data=words).save(name, overwrite=True)
    yield "custom-webhook/lab", told
    page.shutdown()
    page.server_close()


def test_who_is_to_be_told_is_looked_for_before_anything_is_done(
    server: str, block: tuple[str, list[dict[str, str]]], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect.blocks.system import Secret

    Secret(value="x").save("lab", overwrite=True)
    for words, said in (
        (["--notify-block", "custom-webhook/nobody"], "no block 'custom-webhook/nobody'; `prefect block ls`"),
        (["--notify-block", "secret/lab"], "secret/lab is a Secret, which notifies nobody"),
        (["--notify", "no-such-command"], "no command 'no-such-command'"),
    ):
        assert retrained(project, *words) == 2
        assert said in capsys.readouterr().err
    assert clones(project) == []


def test_an_inbox_that_is_gone_is_told_too(
    server: str, project: Path, block: tuple[str, list[dict[str, str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert retrained(project, "--inbox", str(project / "gone"), "--notify-block", block[0]) == 2
    assert "gone is no folder" in block[1][0]["body"] and "gone is no folder" in capsys.readouterr().err
    assert retrained(project, "--timeout", "trian=3") == 1  # of the clone's dvc.yaml, which is kept with it
    assert "did you mean train" in capsys.readouterr().err
    assert retrained(project, "--inbox", str(project / "gone"), "--notify-block", "custom-webhook/refused") == 2
    assert "gone is no folder" in capsys.readouterr().err  # not that nobody was told, which is logged


def test_what_reached_nobody_is_said(
    server: str, block: tuple[str, list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import flow

    outcomes = [{"dataset": "fivek", "decision": "keep", "summary": "1 against 2; $(touch hacked)"}]

    @flow
    def tell(name: str | None) -> None:
        announce.Teller(name).tell(outcomes)

    tell(block[0])
    assert block[1] == [{"subject": "retrain: fivek keep", "body": "fivek: keep: 1 against 2; $(touch hacked)"}]
    for command, name, why in (("", "custom-webhook/refused", "500"), ("false", None, "false ended with exit code 1")):
        monkeypatch.setenv(announce.COMMAND, command)
        with pytest.raises(announce.NotTold, match=rf"(?s)nobody was told: .*{why}.*fivek: keep: 1 against 2"):
            tell(name)


def test_one_datasets_fault_is_not_the_others(
    server: str,
    project: Path,
    tmp_path: Path,
    block: tuple[str, list[dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two datasets: the first one's training fails, the second is judged all the same, and the lab hears of both."""
    from flows import retrain

    def one(_wishes: object, dataset: str, photos: Path | None) -> retrain.Outcome:
        assert (photos is None) == (dataset == "ppr10k")
        if dataset == "fivek":
            raise retrain.RetrainFailed("no luck")
        return retrain.Outcome(dataset, "keep", "1 against 2")

    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    (project / "params.yaml").write_text(yaml.safe_dump(tree))
    add_photo(tmp_path / "there", "a0009-new")
    (tmp_path / "in/fivek").mkdir(parents=True)
    (tmp_path / "in/fivek/dng").symlink_to(tmp_path / "there/dng")
    (tmp_path / "in/ppr10k/raw").mkdir(parents=True)  # waits for photos
    (tmp_path / "in/ppr10k/.gitkeep").touch()
    monkeypatch.setattr(retrain, "retrain_one", one)
    words = ["--root", str(project), "--inbox", str(tmp_path / "in"), "--notify-block", block[0]]
    assert retrain_command.main(words) == 1
    assert block[1][0]["body"].splitlines() == ["fivek: failed: no luck", "ppr10k: keep: 1 against 2"]

    def unanswered(_wishes: object, dataset: str, _photos: Path | None) -> retrain.Outcome:
        assert dataset == "fivek", "the server has ended the run: nothing more is begun"
        raise retrain.RetrainFailed("nobody") from approval.NobodyAnswered("nobody")

    monkeypatch.setattr(retrain, "retrain_one", unanswered)
    assert retrain_command.main(words) == 1
    assert block[1].pop()["body"] == "fivek: failed: nobody"
    (tmp_path / "in/FiveK").mkdir()
    assert retrain_command.main(words) == 2
    assert "holds 'FiveK': for all datasets, it holds a folder for each (fivek, ppr10k)" in block[1][1]["body"]


def test_what_a_killed_retraining_left_is_ended_before_its_clone_is_touched(project: Path) -> None:
    place = project / clone.PLACE / "fivek-0123456789ab"  # of another commit than the next one starts from
    place.mkdir(parents=True)
    environment = {**os.environ, **family.mark(place, "train@fivek")}
    with subprocess.Popen(["sleep", "600"], env=environment) as orphan:
        try:
            until(lambda: family.members(place), 30, "its environment")  # a moment after the program has begun
            with clone.only_one(project):
                assert orphan.wait(30) == -signal.SIGTERM
        finally:
            orphan.kill()


def test_the_clones_of_another_dataset_stay(tmp_path: Path) -> None:
    from flows import retrain

    gone = [f"fivek-{'0' * 12}", f"fivek-{'a' * 12}", "fivek-champion"]
    kept = [f"fivek-480-{'0' * 12}", "fivek-480-champion", f"ppr10k-{'0' * 12}", "lock"]
    for name in gone + kept:
        (tmp_path / name).mkdir()
    retrain._end(tmp_path / gone[0], retrain.Outcome("fivek", "keep", ""))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_a_branch_that_somebody_has_checked_out_is_refused_at_the_start(project: Path, tmp_path: Path) -> None:
    """git would refuse the push at the very end."""
    for folder in (project, tmp_path / "beside"):
        if folder == project:
            run(project, "git", "checkout", "-qb", "retrain")
        else:
            run(project, "git", "checkout", "-q", "main")
            run(project, "git", "worktree", "add", "-q", str(folder), "retrain")
        with pytest.raises(UserError, match=rf"the branch retrain is checked out in .*{folder.name}"):
            clone.base(project, "retrain")


def test_what_is_not_committed_is_refused(project: Path) -> None:
    set_steps(project, 700)
    with pytest.raises(UserError, match=r"(?s)changes that are not committed.*params.yaml.*git commit -a"):
        clone.base(project, "retrain")
    run(project, "git", "commit", "-qam", "more")
    add_photo(project / "data/fivek", "a0003-more")
    with pytest.raises(UserError, match=r"data.dvc and the corpora beside it differ.*dvc checkout data.dvc"):
        clone.base(project, "retrain")
    dvc(project, "add", "-q", "data")
    run(project, "git", "commit", "-qam", "a photo")
    assert clone.base(project, "retrain") == run(project, "git", "rev-parse", "HEAD").strip()


def test_the_branch_is_gone_on_with_and_never_overwritten(project: Path) -> None:
    run(project, "git", "checkout", "-qb", "retrain")
    run(project, "git", "commit", "-q", "--allow-empty", "-m", "a promoted model")
    tip = run(project, "git", "rev-parse", "HEAD").strip()
    run(project, "git", "checkout", "-q", "main")
    assert clone.base(project, "retrain") == tip
    run(project, "git", "commit", "-q", "--allow-empty", "-m", "work")
    with pytest.raises(UserError, match="have gone apart: `git merge retrain`"):
        clone.base(project, "retrain")
    with pytest.raises(UserError, match="branch"):
        clone.base(project, "--upload-pack=touch hacked")


def test_one_retraining_at_a_time(project: Path) -> None:
    with clone.only_one(project), pytest.raises(UserError, match=f"process {os.getpid()}"), clone.only_one(project):
        pass
    with clone.only_one(project):
        pass  # free again


def test_a_folder_that_is_no_repository_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not the root of a git and DVC repository"), clone.only_one(tmp_path):
        pass


def test_approval_wants_a_server_people_can_open(capsys: pytest.CaptureFixture[str]) -> None:
    script = "import sys; from flows import retrain_command; sys.exit(retrain_command.main(['--approval', '9']))"
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "prefect server start" in done.stderr


def test_help_teaches_without_prefect() -> None:
    script = (
        "import runpy, sys; sys.argv[1:] = ['--help']\ntry: runpy.run_module('flows.retrain', run_name='__main__')\n"
    )
    script += "finally: print('prefect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.rstrip().endswith("False") and "--inbox" in done.stdout
