"""dvc.yaml says what is true: each stage depends on its code, its inputs and its parameters, no more and no less."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest
import yaml
from dvc.repo import Repo

from diffretouch.config import Params
from tests.import_graph import COMPARE_YAML, DVC_YAML, ROOT, code_of, differences, is_code, modules, read_dvc_yaml

TREE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STAGES = list(TREE)
COMPARE = yaml.safe_load(COMPARE_YAML.read_text())["stages"]
"""A file of its own, so that `dvc repro` leaves it out."""
DATASETS = ("fivek", "ppr10k")


def instances(*stages: str) -> set[str]:
    return {stage if stage == "report" else f"{stage}@{dataset}" for stage in stages for dataset in DATASETS}


def test_every_stage_has_its_file_and_its_section() -> None:
    files = {path.stem for path in (ROOT / "diffretouch" / "stages").glob("*.py")} - {"__init__"}
    assert files == set(STAGES) | set(COMPARE)
    assert files < set(Params.model_fields)


def test_code_deps_are_the_import_graph() -> None:
    for path in (DVC_YAML, COMPARE_YAML):
        _, tree = read_dvc_yaml(path)
        assert differences(tree) == {}, "run `python -m tests.import_graph --write`"


def test_the_import_graph_sees_what_python_imports() -> None:
    """An outsider's answer: the modules that are loaded after importing a stage are all in the graph."""
    script = (
        "import sys, diffretouch.stages.attributes;"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'diffretouch'))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {Path(file).relative_to(ROOT).as_posix() for file in done.stdout.split()}
    assert loaded <= set(code_of("attributes"))


@pytest.mark.parametrize("stage", STAGES)
def test_every_section_a_stage_reads_is_tracked(stage: str) -> None:
    read = {
        node.attr
        for file in code_of(stage)
        if file.endswith(".py") and "/config/" not in file
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params"
    }
    read = {"corpora" if name == "corpus" else name for name in read} & set(Params.model_fields)
    tracked = {entry.split(".")[0] for entry in TREE[stage]["params"]}
    assert read - {"runtime"} <= tracked
    assert tracked - {"runtime"} == ({"report", "datasets"} if stage == "report" else {stage, "corpora"})
    # of how the work is done, what changes what is made
    ours = [entry for entry in TREE[stage]["params"] if entry.startswith("runtime")]
    assert ours == (["runtime.processes"] if stage == "train" else [])


@pytest.mark.parametrize("stage", STAGES)
def test_inputs_are_the_folders_its_code_opens(stage: str) -> None:
    named = {name for file in code_of(stage) if file.endswith(".py") for name in _stage_dirs(ROOT / file)} - {stage}
    declared = {dep.split("/")[1] for dep in TREE[stage]["deps"] if dep.startswith("work/")}
    assert named == declared


def test_the_comparison_reads_what_it_tracks_and_runs_from_the_root() -> None:
    body = COMPARE["compare"]
    assert body["wdir"] == ".." and body["cmd"] == "diffretouch compare ${item.dataset}"
    assert {dep for dep in body["deps"] if not is_code(dep)} == {
        f"work/{stage}/${{item.dataset}}" for stage in ("decode", "attributes")
    }
    sections = {entry.split(".")[0] for entry in body["params"]}
    assert sections == {"compare", "train", "sample", "evaluate", "corpora"}
    for stage in ("train", "sample", "evaluate"):
        assert set(code_of(stage)) < set(code_of("compare"))


def test_the_report_opens_nothing_it_cannot_depend_on() -> None:
    """It writes into reports/, so it cannot depend on that folder: what it shows must come from work/."""
    opened = {
        file for file in code_of("report") if file.startswith("diffretouch/report/") and _calls(file, "report_dir")
    }
    assert opened == set()


def _stage_dirs(path: Path) -> Iterator[str]:
    """First arguments of `stage_dir`: a constant, or the variable of a comprehension over constants."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "stage_dir":
            if isinstance(node.args[0], ast.Constant):
                yield node.args[0].value
        elif isinstance(node, ast.GeneratorExp) and "id='stage_dir'" in ast.dump(node.elt):
            source = node.generators[0].iter
            yield from (item.value for item in ast.walk(source) if isinstance(item, ast.Constant))


def _calls(file: str, function: str) -> bool:
    if not file.endswith(".py"):
        return False
    nodes = ast.walk(ast.parse((ROOT / file).read_text()))
    return any(isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == function for n in nodes)


def test_names_that_others_rely_on() -> None:
    with Repo(str(ROOT)) as repo:
        names = {stage.name for stage in repo.index.stages if not stage.is_data_source}
        outs = {Path(out.fs_path).relative_to(ROOT).as_posix() for out in repo.index.outs}
    assert names == instances(*STAGES, *COMPARE)
    for dataset in DATASETS:
        assert {
            f"reports/{dataset}/metrics.json",
            f"reports/{dataset}/metrics.csv",
            f"reports/{dataset}/tsne.csv",
        } <= outs
        assert {f"work/study/{dataset}/export", f"work/study/{dataset}/key.csv"} <= outs
    assert "reports/index.html" in outs


def test_one_datasets_chain_never_waits_for_the_other() -> None:
    with Repo(str(ROOT)) as repo:
        graph = nx.relabel_nodes(repo.index.graph, {stage: stage.addressing for stage in repo.index.graph})
    for stage in STAGES:
        if stage != "report":
            assert not [name for name in nx.descendants(graph, f"{stage}@fivek") if name.startswith("compare/")]
            needed = nx.descendants(graph, f"{stage}@fivek")
            assert not [name for name in needed if name.endswith("@ppr10k")]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with stand-ins for every output, committed: everything is up to date there."""
    root = tmp_path_factory.mktemp("copy")
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "diffretouch", root / "diffretouch", ignore=shutil.ignore_patterns("__pycache__"))
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    subprocess.run([*dvc, "init", "-q"], cwd=root, check=True)
    for dataset in DATASETS:
        (root / "data" / dataset).mkdir(parents=True)
        (root / "data" / dataset / "photo.dng").write_text(dataset)
    subprocess.run([*dvc, "add", "-q", "data"], cwd=root, check=True)
    with Repo(str(root)) as repo:
        outs = [Path(out.fs_path) for stage in repo.index.stages if not stage.is_data_source for out in stage.outs]
    for out in outs:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix:
            out.write_text(f"{out}\n")
        else:
            out.mkdir()
            (out / "table.csv").write_text(f"a\n{out}\n")
    subprocess.run([*dvc, "commit", "-q", "-f"], cwd=root, check=True, capture_output=True)
    return root


def stale(root: Path) -> set[str]:
    """Stages that `dvc repro` would run because of what changed in them, not because of a stage above."""
    before = Path.cwd()
    os.chdir(root)  # DVC names stages from the current folder
    try:
        with Repo(str(root)) as repo:
            return {name.removeprefix("dvc.yaml:") for name in repo.status()}
    finally:
        os.chdir(before)


def test_a_fresh_commit_is_up_to_date_and_leaves_no_ignore_files(copy: Path) -> None:
    assert stale(copy) == set()
    # DVC puts a .gitignore beside an output that git does not ignore; inside work/ it would be part of the next input
    assert not list((copy / "work").rglob(".gitignore"))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("  demosaic: AHD", "  demosaic: DHT", instances("decode")),
        ("  scheme: expert_range", "  scheme: ternary", instances("attributes")),
        ("  warmup_steps: 50", "  warmup_steps: 51", instances("train")),
        ("  axis_points: 7", "  axis_points: 9", instances("sample")),
        ("  bootstrap: 2000", "  bootstrap: 1000", instances("evaluate")),
        ("  perplexity: 20.0", "  perplexity: 10.0", instances("embed")),
        ("  repeats: 3", "  repeats: 2", instances("study")),
        ("  jpeg_quality: 88", "  jpeg_quality: 90", {"report"}),
        ("  processes: 1", "  processes: 2", instances("train")),
        ("  threads: 1", "  threads: 2", set()),
        ("  workers: 2", "  workers: 1", set()),
        ("test_from: 4501", "test_from: 4001", {f"{stage}@fivek" for stage in STAGES if stage != "report"}),
        (
            "variance: fixed_large",
            "variance: fixed_small",
            {f"{stage}@ppr10k" for stage in STAGES if stage != "report"},
        ),
    ],
)
def test_one_value_makes_these_stages_stale_and_no_other(copy: Path, old: str, new: str, expected: set[str]) -> None:
    params = copy / "params.yaml"
    before = params.read_text()
    assert before.count(old) == 1
    params.write_text(before.replace(old, new))
    try:
        assert stale(copy) == expected
    finally:
        params.write_text(before)


@pytest.mark.parametrize(
    "module", ["metrics.py", "condition.py", "bilateral_grid.py", "stages/study.py", "report/page.css"]
)
def test_one_module_makes_the_stages_that_import_it_stale_and_no_other(copy: Path, module: str) -> None:
    file = copy / "diffretouch" / module
    before = file.read_text()
    file.write_text(before + "\n")
    try:
        users = [stage for stage in STAGES if f"diffretouch/{module}" in code_of(stage)]
        assert 0 < len(users) < len(STAGES)
        assert stale(copy) == instances(*users)
    finally:
        file.write_text(before)


def test_what_python_leaves_behind_changes_nothing(copy: Path) -> None:
    cache = copy / "diffretouch" / "stages" / "__pycache__"
    cache.mkdir()
    (cache / "decode.cpython-311.pyc").write_bytes(b"0")
    assert stale(copy) == set()


def test_reproducing_all_leaves_the_comparison_out(copy: Path) -> None:
    (copy / "compare").mkdir()
    shutil.copy(COMPARE_YAML, copy / "compare")
    try:
        dvc = [sys.executable, "-m", "dvc", "repro", "--dry"]
        plain, named = (
            subprocess.run([*dvc, *words], cwd=copy, capture_output=True, text=True, check=True).stdout
            for words in ((), ("compare/dvc.yaml:compare@fivek",))
        )
        assert "compare" not in plain and "up to date" in plain
        assert "> diffretouch compare fivek" in named and "ppr10k" not in named.partition("compare/dvc.yaml")[2]
    finally:
        shutil.rmtree(copy / "compare")


def test_stages_run_what_the_command_line_offers() -> None:
    for stage, body in TREE.items():
        argument = "" if stage == "report" else " ${item.dataset}"
        assert body["cmd"] == f"diffretouch {stage}{argument}"
        assert [dep for dep in body["deps"] if is_code(dep)]
    assert "diffretouch.cli" in modules()
