"""What ruff and mypy do not see: sizes, names, and habits that the project does without."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "fettle"
FILES = {str(path.relative_to(SRC)): path for path in sorted(SRC.rglob("*.py"))}
_MOST_LINES = 500
_MOST_FUNCTION_LINES = 80
_MOST_ARGUMENTS = 8
_NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "base", "manager", "common", "misc"}

each_file = pytest.mark.parametrize("name", FILES)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def nodes(name: str) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(FILES[name].read_text()))


@each_file
def test_sizes(name: str) -> None:
    assert len(FILES[name].read_text().splitlines()) <= _MOST_LINES
    for node in nodes(name):
        if isinstance(node, Function) and node.end_lineno is not None:
            assert node.end_lineno - node.lineno < _MOST_FUNCTION_LINES, f"{node.name} is too long"


@each_file
def test_constructors_are_small(name: str) -> None:
    for node in nodes(name):
        if isinstance(node, Function) and node.name == "__init__":
            count = len(node.args.args) + len(node.args.kwonlyargs) - 1
            limit = _MOST_ARGUMENTS + 1 if name == "study.py" else _MOST_ARGUMENTS  # the study's are the product's API
            assert count <= limit, f"{name}: a constructor with {count} arguments"


@each_file
def test_names(name: str) -> None:
    assert not {re.sub(r"\.py$", "", part) for part in Path(name).parts} & _NAMES_THAT_SAY_NOTHING


@each_file
def test_nothing_is_printed_outside_the_command_line(name: str) -> None:
    if name.startswith("cli/") or name == "problems/serve/targets/mosec_server.py":  # a server that runs on its own
        return
    calls = [n.func.id for n in nodes(name) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    assert "print" not in calls
    assert "input" not in calls
    assert "eval" not in calls


@each_file
def test_the_environment_is_not_written(name: str) -> None:
    if name == "problems/serve/targets/mosec_server.py":
        return
    for node in nodes(name):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.putenv", "os.environ.update", "os.chdir"):
            assert name == "host/supervisor.py", (
                f"{name}: {ast.unparse(node)}"
            )  # in the child, before it becomes another
        if isinstance(node, ast.Assign | ast.Delete):
            written = [ast.unparse(target) for target in node.targets]
            assert not [w for w in written if w.startswith("os.environ")], name


@each_file
def test_there_is_no_global_randomness(name: str) -> None:
    text = FILES[name].read_text()
    assert not re.search(r"^import random|np\.random\.(seed|rand|randn|randint|choice|random|normal)\(", text, re.M)


@each_file
def test_broad_excepts_are_for_executors(name: str) -> None:
    """Elsewhere each needs a comment on its line that says why."""
    lines = FILES[name].read_text().splitlines()
    for node in nodes(name):
        if isinstance(node, ast.ExceptHandler):
            caught = "" if node.type is None else ast.unparse(node.type)
            if caught in ("", "Exception", "BaseException") and not name.startswith("executors/"):
                raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                assert raises or "#" in lines[node.lineno - 1], f"{name}:{node.lineno}"


def test_files_speak_of_the_project_alone() -> None:
    """No paths of one machine in what ships."""
    suffixes = {".py", ".toml", ".md", ".yaml", ".json", ".txt", ".css", ".js", ".j2", ""}
    folders = [SRC, ROOT / "tests", ROOT / "bench", ROOT / "examples", ROOT / "docs"]
    files = [p for folder in folders for p in folder.rglob("*") if p.is_file() and p.suffix in suffixes]
    files += [ROOT / name for name in ("README.md", "Makefile", "pyproject.toml", "constraints.txt")]
    assert len(files) > 100
    machine = "/" + "work/"
    for path in files:
        if "__pycache__" not in path.parts:
            assert machine not in path.read_text(errors="replace"), path
