"""Models in use: tags that DVC, GTO and plain git all read, where a model came from, and the way back."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import pytest
import yaml

from diffretouch.errors import UserError
from diffretouch.releases import NewTags, Release, Tag, find, line, new_tags, releases
from flows import doctor_dvc, git_process, lineage, registry, rollback
from tests import model_project
from tests.model_project import ROOT, dvc, run, set_steps

A, B, C = "a" * 40, "b" * 40, "c" * 40


def tag(name: str, commit: str, at: int) -> Tag:
    return Tag(name, commit, at)


def history(*uses: tuple[str, str]) -> list[Tag]:
    """Versions 1, 2, 3 on the commits A, B, C, and uses in this order."""
    versions = [tag(f"model-fivek@v{number}.0.0", commit, number) for number, commit in enumerate((A, B, C), 1)]
    return versions + [tag(f"model-fivek#prod#{count}", commit, int(at)) for count, (commit, at) in enumerate(uses, 1)]


def test_the_one_in_use_is_the_last_by_time_and_the_line_leads_back() -> None:
    tags = history((A, "11"), (B, "12"), (A, "13"), (C, "14"))
    assert [release.version for release in line(tags, "model-fivek")] == ["v1.0.0", "v3.0.0"]
    assert line(tags, "model-ppr10k") == []
    # counts alone would say otherwise: a clone's tags may come in any order
    assert line(list(reversed(tags)), "model-fivek") == line(tags, "model-fivek")


def test_versions_are_sorted_as_numbers() -> None:
    tags = [tag(f"model-fivek@v{number}.0.0", A, number) for number in (10, 9, 2)] + [tag("v1.0", A, 1)]
    assert [release.version for release in releases(tags, "model-fivek")] == ["v2.0.0", "v9.0.0", "v10.0.0"]
    assert new_tags(tags, "model-fivek", 5, version=True).version == "model-fivek@v11.0.0"


def test_new_tags_are_later_than_every_other_whatever_the_clock_says() -> None:
    tags = history((A, "100"))
    assert new_tags(tags, "model-fivek", 7, version=False) == (None, "model-fivek#prod#2", 101)
    assert new_tags([], "model-fivek", 7, version=True) == ("model-fivek@v1.0.0", "model-fivek#prod#1", 7)


@pytest.mark.parametrize("text", ["fivek", "model-fivek", "model-fivek@v2", "fivek@2", "fivek@v2.0.0"])
def test_people_name_models_in_short(text: str) -> None:
    assert find(history((B, "11")), text) == Release("model-fivek", "v2.0.0", B)


@pytest.mark.parametrize(("text", "said"), [("fivek@v7", "model-fivek@v3.0.0"), ("ppr10k", "no version yet")])
def test_a_model_that_is_not_there_is_answered_with_those_that_are(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find(history((B, "11")), text)


def test_dvc_yaml_names_a_model_a_dataset() -> None:
    tree = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    datasets = yaml.safe_load((ROOT / "params.yaml").read_text())["datasets"]
    assert {name: artifact["path"] for name, artifact in tree["artifacts"].items()} == {
        f"model-{dataset}": f"work/train/{dataset}/model" for dataset in datasets
    }


def release_now(root: Path, decision: str = "promote") -> Release:
    """Train as params.yaml says, write a verdict, commit, tag and put in use."""
    dvc(root, "repro", "-q")
    folder = root / registry.verdict_folder("fivek")
    folder.mkdir(parents=True, exist_ok=True)
    told = {"decision": decision, "summary": "as good as any", "use": "research"}
    (folder / "verdict.json").write_text(json.dumps(told))
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "-qm", "A model")
    commit = run(root, "git", "rev-parse", "HEAD").strip()
    names = new_tags(git_process.tags(root), "model-fivek", int(time.time()), version=True)
    git_process.put_in_use(root, names, Release("model-fivek", "", commit), "in use")
    return find(git_process.tags(root), "fivek")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two released models."""
    root = model_project.make(tmp_path_factory.mktemp("registry") / "project", steps=500)
    release_now(root)
    set_steps(root, 600)
    release_now(root)
    return root


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built.parent, tmp_path / "lab", symlinks=True)
    return tmp_path / "lab" / built.name


def model_in_use(root: Path, out: Path) -> str:
    """As people fetch it."""
    dvc(root, "artifacts", "get", "-q", str(root), "model-fivek", "--stage", "prod", "-o", str(out))
    return (out / "weights").read_text()


@pytest.mark.slow
def test_dvc_gto_and_git_agree_and_rollback_restores(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert model_in_use(project, tmp_path / "second") == "600 3"
    assert rollback.main(["fivek", "--root", str(project), "--out", str(tmp_path / "mine")]) == 0
    assert "model-fivek@v1.0.0 is in use again (tag model-fivek#prod#3)" in capsys.readouterr().out
    assert model_in_use(project, tmp_path / "first") == "500 3"
    assert (tmp_path / "mine" / "weights").read_text() == "500 3" and not list(tmp_path.glob(".diffretouch-*"))
    shown = run(project, str(Path(sys.executable).with_name("gto")), "show", "model-fivek", "--json")
    used = [found["version"] for found in json.loads(shown) if "prod" in json.dumps(found.get("stage", found))]
    assert used[:1] == ["v1.0.0"]
    last = run(project, "git", "tag", "--list", "model-fivek#prod#*", "--sort=taggerdate").split()[-1]
    assert run(project, "git", "rev-parse", f"{last}^{{}}") == run(project, "git", "rev-parse", "model-fivek@v1.0.0^{}")
    # nothing of people's changed, and there is nothing before the first
    assert run(project, "git", "status", "--porcelain") == ""
    assert rollback.main(["fivek", "--root", str(project)]) == 1
    assert "model-fivek@v1.0.0 is the first" in capsys.readouterr().err
    assert rollback.main(["model-fivek", "--root", str(project), "--to", "2"]) == 0
    assert registry.in_use(project, "fivek") == find(git_process.tags(project), "fivek@v2")


def test_a_model_that_the_gate_has_not_allowed_is_not_put_in_use(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("use: research", "use: commercial"))
    assert rollback.main(["fivek", "--root", str(project)]) == 1
    assert "was judged for research, and params.yaml's gate.use is commercial now" in capsys.readouterr().err
    (project / "params.yaml").write_text(text)
    bare = run(project, "git", "rev-list", "--max-parents=0", "HEAD").strip()
    git_process.put_in_use(
        project,
        NewTags("model-fivek@v3.0.0", "model-fivek#prod#9", 1_000_000_000),
        Release("model-fivek", "", bare),
        "",
    )
    assert rollback.main(["fivek", "--root", str(project), "--to", "v3"]) == 1
    assert "model-fivek@v3.0.0 has no verdict of the gate" in capsys.readouterr().err
    assert registry.in_use(project, "fivek") == find(git_process.tags(project), "fivek@v2")


def test_who_has_no_name_in_git_can_go_back(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for key in ("user.name", "user.email"):
        run(project, "git", "config", "--unset", key)
    run(project, "git", "config", "user.useConfigOnly", "true")  # as where git can derive none
    for name, value in (("HOME", str(tmp_path)), ("XDG_CONFIG_HOME", str(tmp_path)), ("GIT_CONFIG_NOSYSTEM", "1")):
        monkeypatch.setenv(name, value)
    assert rollback.main(["fivek", "--root", str(project)]) == 0


def test_a_model_whose_files_are_gone_is_not_put_in_use(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(project / ".dvc/cache")
    assert rollback.main(["fivek", "--root", str(project)]) == 1
    assert "neither DVC's cache here nor a remote has it" in capsys.readouterr().err
    assert registry.in_use(project, "fivek") == find(git_process.tags(project), "fivek@v2")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["fivek", "--to", "v9"], 2, "model-fivek@v2.0.0"),
        (["ppr10k"], 2, "no model of model-ppr10k is in use"),
        (["fivek", "--to", "v2"], 1, "in use already"),
        (["--exec=touch hacked"], 2, "no model of"),
        (["fivek; touch hacked", "--to", "$(touch hacked)"], 2, "no model of"),
    ],
)
def test_rollback_answers_mistakes(
    built: Path, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = git_process.tags(built)
    assert (
        rollback.main(["--root", str(built), "--", *words] if len(words) == 1 else [*words, "--root", str(built)])
        == code
    )
    assert said in capsys.readouterr().err
    assert git_process.tags(built) == before
    assert not (built / "hacked").exists() and not (Path.cwd() / "hacked").exists()


def test_lineage_names_data_parameters_code_numbers_and_verdict(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lineage.main(["model-fivek@v1", "--json", "--root", str(built)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"]["name"] == "model-fivek@v1.0.0" and not found["model"]["in use"]
    assert found["model"]["card"] == {"dataset": "toy", "provenance": "real"}
    entry = yaml.safe_load((built / "data.dvc").read_text())["outs"][0]
    assert entry["md5"] in found["data"]["tree"]
    assert found["data"]["corpus"] == {"name": "toy", "provenance": "real", "licence": "CC0"}
    assert found["parameters"]["train"]["steps"] == 500
    assert found["code"]["commit"] == find(git_process.tags(built), "fivek@1").commit
    assert found["metrics"] == {"test": {"expert": {"quality": {"mean": 500}}}}
    assert found["verdict"]["decision"] == "promote"
    assert lineage.main(["fivek", "--root", str(built)]) == 0
    printed = capsys.readouterr().out
    assert "licence: CC0" in printed and "steps: 600" in printed and "in use: yes" in printed
    assert lineage.main(["fivek@v8", "--root", str(built)]) == 2
    assert "it has model-fivek@v1.0.0, model-fivek@v2.0.0" in capsys.readouterr().err


def test_the_list_says_what_is_in_use_and_why(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert registry.main(["--root", str(built)]) == 0
    _, second, first = capsys.readouterr().out.splitlines()
    assert second.split()[:3] == ["model-fivek@v2.0.0", "promote", "model-fivek#prod#2"]
    assert second.endswith("as good as any")
    assert first.split()[:2] == ["model-fivek@v1.0.0", "promote"] and "#prod#" not in first


def test_tags_of_another_stage_are_no_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tags = [*history((A, "11"), (B, "12")), tag("model-fivek#staging#3", B, 13)]
    monkeypatch.setattr(git_process, "tags", lambda _: tags)
    monkeypatch.setattr(registry, "verdict", lambda *_: None)
    assert [row.use.name for row in registry.rows(tmp_path) if row.use] == ["model-fivek#prod#2"]


def test_a_model_in_use_without_a_verdict_is_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = run(project, "git", "rev-list", "--max-parents=0", "HEAD").strip()
    names = NewTags(None, "model-fivek#prod#9", 2_100_000_000)
    git_process.put_in_use(project, names, Release("model-fivek", "", bare), "by hand")
    assert registry.main(["--root", str(project)]) == 1
    said = capsys.readouterr()
    assert f"model-fivek@{bare[:10]}" in said.out and "has no verdict of the gate" in said.err


def test_a_model_in_use_for_more_than_it_was_judged_for_is_told(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("use: research", "use: commercial"))
    assert registry.main(["--root", str(project)]) == 1
    assert "was judged for research, and params.yaml's gate.use is commercial now" in capsys.readouterr().err
    (found,) = doctor_dvc._models(project)
    assert found.level == "fault" and "was judged for research" in found.what
    for broken in ("a: [", "gate: 3", "gate: []", "gate: {}", "- 1"):
        (project / "params.yaml").write_text(broken)
        (found,) = doctor_dvc._models(project)
        assert found.level == "fault" and "does not say gate.use" in found.what
        assert registry.main(["--root", str(project)]) == 2


def test_an_empty_registry_says_what_to_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert registry.main(["--root", str(tmp_path)]) == 2
    assert "not a git repository" in capsys.readouterr().err
    run(tmp_path, "git", "init", "-q")
    assert registry.main(["--root", str(tmp_path)]) == 0
    assert "flows.retrain" in capsys.readouterr().out


@pytest.mark.parametrize("module", [registry, rollback, lineage], ids=lambda module: module.__name__)
def test_help_teaches(module: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        module.main(["--help"])  # type: ignore[attr-defined]
    assert exit_.value.code == 0
    assert "exit codes" in capsys.readouterr().out
