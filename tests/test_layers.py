"""Who may import whom: layers, fences around heavy packages, no cycles. Read from the source, nothing is imported."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "fettle"

# layer -> what it may import of Fettle, itself aside; later layers stand on earlier ones
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "host": {"core"},
    "surrogates": {"core"},
    "algorithms": {"core", "surrogates"},
    "schedulers": {"core", "surrogates"},
    "report": {"core", "surrogates"},
    "storage": {"core"},
    "executors": {"core", "host"},
    "problems": {"core", "host"},
    "registry": {"core"},
    "proposing": {"core"},
    "loop": {"core", "surrogates", "registry", "proposing"},
    "study": {"core", "surrogates", "registry", "proposing", "loop", "storage"},
    "replay": {"core", "surrogates", "registry"},
    "data": set(),
    "schemas": {"core"},
}
MAY_IMPORT["interop"] = {"core", "registry"}  # one file per tool that Fettle's parts fit into
_BELOW = {*MAY_IMPORT}
MAY_IMPORT["prior"] = {*_BELOW}
MAY_IMPORT["api"] = {*_BELOW, "prior"}
MAY_IMPORT["testing"] = {*_BELOW}  # the suites drive what they test; nothing in the product imports them
MAY_IMPORT["cli"] = {*_BELOW, "prior", "api"}
MAY_IMPORT["dashboard"] = {*_BELOW, "api"}
MAY_IMPORT["__main__"] = {"cli"}

# the registry holds dotted names and stands on core alone: a problem looks up the targets of other packages in it, an
# algorithm around another one that algorithm
EXCEPTIONS = {("fettle.problems.serve.problem", "fettle.registry"), ("fettle.algorithms.boxed", "fettle.registry")}

_TORCH = ("problems/nas", "problems/compress", "problems/runtimes", "problems/function", "surrogates/meta")
FENCES: dict[str, tuple[str, ...]] = {
    "torch": _TORCH,
    "ray": ("executors/ray",),
    "cmaes": ("algorithms/cmaes",),
    "threadpoolctl": ("surrogates/threads",),
    "optuna": ("interop/optuna",),
    "onnx": ("problems",),
    "onnxruntime": ("problems", "host/machine", "cli/doctor"),
    "mosec": ("problems/serve/targets",),
    "uvloop": ("problems/serve",),
    "jinja2": ("report",),
    "rich": ("cli",),
    "click": ("cli",),
    "yaml": ("cli", "problems", "api", "host"),
    "sqlite3": ("storage",),
    "cloudpickle": ("executors",),
    "pickle": ("executors", "testing"),
}
_NEVER = ("pandas", "sklearn", "requests", "sqlalchemy", "tensorflow", "pytest")  # not among the dependencies
FENCES.update(dict.fromkeys(_NEVER, ()))
NUMPY_ONLY = "core"  # of all third-party packages


@cache
def sources() -> dict[str, ast.Module]:
    """Dotted module name -> its tree."""
    found = {}
    for path in sorted(SRC.rglob("*.py")):
        parts = ("fettle", *path.relative_to(SRC).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(module: str, tree: ast.AST, *, lazy: bool) -> Iterator[str]:
    """Dotted names imported at run time. lazy: those inside functions, too."""
    for node in ast.iter_child_nodes(tree):
        if is_type_checking(node):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import; write the whole name"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in sources() else str(node.module)
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(module, node, lazy=lazy)


def layer(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "fettle"


@pytest.mark.parametrize("module", sources())
def test_layers(module: str) -> None:
    own = layer(module)
    if own == "fettle":
        assert not [name for name in imports(module, sources()[module], lazy=False) if name.startswith("fettle")]
        return
    assert own in MAY_IMPORT, f"{own} is a new layer: say in this test and in the architecture page what it may import"
    for name in imports(module, sources()[module], lazy=True):
        if (module, name) in EXCEPTIONS:
            continue
        if name.partition(".")[0] == "fettle" and layer(name) not in (own, "fettle"):
            assert layer(name) in MAY_IMPORT[own], f"{module} must not import {name}"


@pytest.mark.parametrize("module", sources())
def test_problems_are_blind_to_each_other(module: str) -> None:
    parts = module.split(".")
    if parts[1:2] != ["problems"] or len(parts) < 3 or parts[2] == "joint":
        return
    for name in imports(module, sources()[module], lazy=True):
        other = name.split(".")
        if other[:2] == ["fettle", "problems"] and len(other) > 2:
            assert other[2] in (parts[2], "runtimes"), f"{module} must not import its sibling {name}"


@pytest.mark.parametrize("module", sources())
def test_fences(module: str) -> None:
    path = "/".join(module.split(".")[1:])
    for name in imports(module, sources()[module], lazy=True):
        top = name.partition(".")[0]
        if top in FENCES:
            inside = any(path == fence or path.startswith((f"{fence}/", f"{fence}_")) for fence in FENCES[top])
            assert inside, f"{module} must not import {top}: only {FENCES[top] or 'nobody'} may"
        if top == "scipy":
            assert layer(module) != NUMPY_ONLY, f"{module} must not import scipy"


@pytest.mark.parametrize("module", [m for m in sources() if layer(m) == "core"])
def test_core_touches_nothing_outside(module: str) -> None:
    forbidden = {
        "os",
        "socket",
        "subprocess",
        "sqlite3",
        "threading",
        "multiprocessing",
        "shutil",
        "tempfile",
        "random",
    }
    assert not {name.partition(".")[0] for name in imports(module, sources()[module], lazy=True)} & forbidden


@pytest.mark.parametrize("lazy", [False, True])
def test_no_cycles(lazy: bool) -> None:
    """Between modules, imports inside functions included: those would hide a cycle, not mend it."""
    graph = {
        module: {n for n in imports(module, tree, lazy=lazy) if n in sources() and n not in (module, "fettle")}
        for module, tree in sources().items()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_the_test_sees_imports() -> None:
    tree = ast.parse(
        "from typing import TYPE_CHECKING\nimport a.b\nif TYPE_CHECKING:\n    import hidden\n"
        "def f():\n    from fettle.core import space, nothing\nclass C:\n    import c\n"
    )
    assert list(imports("x", tree, lazy=True)) == ["typing", "a.b", "fettle.core.space", "fettle.core", "c"]
    assert list(imports("x", tree, lazy=False)) == ["typing", "a.b", "c"]
