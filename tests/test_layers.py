"""Who may import whom (docs/architecture.md), which heavy packages stay behind fences, and no cycles."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "fettle"
# layer -> what it may import of Fettle besides itself; `problems.*` are blind to one another
ALLOWED = {
    "core": set(),
    "data": set(),
    "schemas": set(),
    "host": {"core"},
    "surrogates": {"core"},
    "algorithms": {"core", "surrogates"},
    "schedulers": {"core", "surrogates"},
    "report": {"core", "surrogates"},
    "storage": {"core", "host"},
    "executors": {"core", "host"},
    "problems": {"core", "host", "registry"},
    "registry": {"core"},
    "loop": {"core", "registry", "proposing"},
    "proposing": {"core", "registry"},
    "study": {"core", "registry", "loop", "proposing", "storage"},
    "api": {"core", "registry", "loop", "proposing", "study", "problems", "report", "storage"},
    "testing": {"core", "host", "registry", "study", "algorithms", "storage", "executors", "problems", "schedulers"},
}
FENCED = {  # package -> where it may be imported at all
    "torch": ("problems/nas", "problems/compress", "problems/runtimes", "problems/function", "surrogates/meta"),
    "ray": ("executors/ray.py",),
    "onnx": ("problems/",),
    "onnxruntime": ("problems/",),
    "mosec": ("problems/serve/targets/mosec_server.py",),
    "rich": ("cli/",),
    "click": ("cli/",),
    "jinja2": ("report/",),
    "sqlite3": ("storage/",),
    "pickle": ("executors/", "testing/"),
    "cloudpickle": ("executors/",),
}
FILES = sorted(SOURCE.rglob("*.py"))


def imports(path: Path) -> list[str]:
    """Dotted names that a file imports, type-checking ones left out."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.extend([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def module(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_layer_imports_only_what_lies_below_it(path: Path) -> None:
    layer = path.relative_to(SOURCE).with_suffix("").parts[0]
    if layer in ("cli", "__init__"):
        return
    wanted = {name.split(".")[1] for name in imports(path) if name.startswith("fettle.")}
    assert wanted - {layer} <= ALLOWED[layer], f"{layer} imports {sorted(wanted - {layer} - ALLOWED[layer])}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_heavy_packages_stay_behind_their_fences(path: Path) -> None:
    here = str(path.relative_to(SOURCE))
    for name in {name.split(".")[0] for name in imports(path)} & set(FENCED):
        assert here.startswith(FENCED[name]), f"{here} imports {name}"


def test_there_is_no_import_cycle() -> None:
    known = {module(path): path for path in FILES}
    graph = {}
    for name, path in known.items():
        graph[name] = {found for found in imports(path) if found in known} - {name, "fettle"}
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"cycle: {' -> '.join([*trail[trail.index(name) :], name])}"
        if name not in done:
            for following in sorted(graph[name]):
                walk(following, (*trail, name))
            done.add(name)

    for name in graph:
        walk(name, ())


def test_core_is_numpy_only() -> None:
    third_party = {"numpy", "fettle"}
    for path in (SOURCE / "core").glob("*.py"):
        import sys

        outside = {n.split(".")[0] for n in imports(path)} - set(sys.stdlib_module_names) - third_party
        assert not outside, f"{path.name} imports {outside}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 500
    assert path.stem not in ("utils", "helpers", "base", "manager", "common")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            assert node.end_lineno - node.lineno < 80, f"{node.name} is too long"
