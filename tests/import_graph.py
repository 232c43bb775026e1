"""What a stage's code is: its file, the modules that one imports, theirs, and the data files of those packages.

python -m tests.import_graph           # say where dvc.yaml or compare/dvc.yaml differs
python -m tests.import_graph --write   # rewrite the code deps of both, leaving all else as it is
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "diffretouch"
DVC_YAML = ROOT / "dvc.yaml"
COMPARE_YAML = ROOT / "compare" / "dvc.yaml"
RUN_BY = {
    "compare": (
        "stages.train",
        "stages.sample",
        "stages.evaluate",
        "comparing.child",
        "comparing.peer_sample",
        "comparing.peer_train",
        "comparing.probe",
    )
}
"""Stage -> modules that it runs in processes of their own, so that no import says so."""


def code_of(stage: str) -> list[str]:
    """Files the stage's result can depend on, from the root, sorted: `stages/<stage>.py` and all below it."""
    return code_below(f"stages.{stage}", *RUN_BY.get(stage, ()))


def code_below(*names: str) -> list[str]:
    """These modules of the package (`stages.train`) and all they import, as files from the root, sorted."""
    found: set[Path] = set()
    todo = {file for name in names for file in _executed(f"{PACKAGE}.{name}")}
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo |= {file for name in _imported(path) for file in _executed(name)}
    data = {file for module in found for file in _data_beside(module)}
    return sorted(path.relative_to(ROOT).as_posix() for path in found | data)


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    files = (ROOT / PACKAGE).rglob("*.py")
    names = {file: ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files}
    return {name: file for file, name in names.items()}


def _executed(name: str) -> set[Path]:
    """Files that importing `name` executes: the module and the `__init__.py` of every package above it."""
    parts, known = name.split("."), modules()
    prefixes = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
    return {known[prefix] for prefix in prefixes if prefix in known}


def _imported(path: Path) -> Iterator[str]:
    """The package's own modules that `path` imports, inside functions too, but not for type checking only."""
    known = modules()
    for node in _walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}:{node.lineno}: relative import; write the whole name")
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from (name for name in (inner, str(node.module)) if name in known)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _walk(child)


def _data_beside(module: Path) -> Iterator[Path]:
    """Templates and tables of the package `module` lies in; folders that are packages of their own are not its."""
    for entry in module.parent.iterdir():
        if entry.is_dir() and entry.name != "__pycache__" and not (entry / "__init__.py").exists():
            yield from (file for file in entry.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        elif entry.is_file() and entry.suffix not in {".py", ".pyc"}:
            yield entry


def read_dvc_yaml(path: Path = DVC_YAML) -> tuple[YAML, dict]:
    """The round-trip reader and the tree of a dvc.yaml, comments kept."""
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml, yaml.load(path.read_text())


def is_code(dep: str) -> bool:
    """Whether a dep of dvc.yaml names code of the package."""
    return dep.startswith(f"{PACKAGE}/")


def differences(tree: dict) -> dict[str, tuple[list[str], list[str]]]:
    """For every stage whose code deps are wrong: (missing from dvc.yaml, too many in it)."""
    wrong = {}
    for stage, body in tree["stages"].items():
        declared, real = {dep for dep in body["deps"] if is_code(dep)}, set(code_of(stage))
        if declared != real:
            wrong[stage] = (sorted(real - declared), sorted(declared - real))
    return wrong


def rewrite(tree: dict) -> None:
    """Put the real code deps behind the others, in place."""
    for stage, body in tree["stages"].items():
        seq: CommentedSeq = body["deps"]
        tail = seq.ca.items.pop(len(seq) - 1, None)  # the blank line after the list hangs on its last item
        seq[:] = [dep for dep in seq if not is_code(dep)] + code_of(stage)
        if tail is not None:
            seq.ca.items[len(seq) - 1] = tail


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="rewrite dvc.yaml")
    arguments = parser.parse_args()
    left = 0
    for path in (DVC_YAML, COMPARE_YAML):
        yaml, tree = read_dvc_yaml(path)
        wrong = differences(tree)
        for stage, (missing, extra) in wrong.items():
            print("\n".join([f"{stage}:", *(f"  + {dep}" for dep in missing), *(f"  - {dep}" for dep in extra)]))
        if wrong and arguments.write:
            rewrite(tree)
            with path.open("w") as stream:
                yaml.dump(tree, stream)
            print(f"{path.relative_to(ROOT)} rewritten")
        elif wrong:
            left = 1
    return left


if __name__ == "__main__":
    sys.exit(main())
