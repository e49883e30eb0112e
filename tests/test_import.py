"""`import fettle` is cheap and inert, and every public name resolves."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import fettle

HEAVY = (
    "click",
    "cloudpickle",
    "jinja2",
    "jsonschema",
    "mosec",
    "numpy",
    "onnx",
    "onnxruntime",
    "optuna",
    "ray",
    "rich",
    "scipy",
)
HEAVY += ("sklearn", "torch", "uvloop", "yaml", "sqlite3", "multiprocessing", "asyncio")


def loaded_by(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `code`."""
    show = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_is_lean() -> None:
    loaded = loaded_by("import fettle")
    assert "fettle" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("fettle.Space", {"numpy"}),
        ("fettle.Study", {"numpy"}),
        ("fettle.Study(fettle.Space(x=fettle.Int(0, 9)), objectives=['l'], algorithm='random').ask()", {"numpy"}),
        ("fettle.serve", {"numpy"}),
    ],
)
def test_what_is_used_brings_only_what_it_needs(code: str, allowed: set[str]) -> None:
    loaded = loaded_by(f"import fettle\n{code}")
    third_party = set(HEAVY) - {"sqlite3", "multiprocessing", "asyncio"}
    assert loaded & third_party <= allowed, code


def test_a_worker_is_lean() -> None:
    loaded = loaded_by("import fettle.executors.worker")
    assert loaded & set(HEAVY) <= {"numpy", "multiprocessing"}


def test_every_public_name_resolves() -> None:
    assert len(set(fettle.__all__)) == len(fettle.__all__) > 20
    for name in fettle.__all__:
        assert getattr(fettle, name) is not None
    assert set(fettle.__all__) <= set(dir(fettle))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fettle.nothing


def test_import_writes_and_starts_nothing(tmp_path: Path) -> None:
    code = (
        "import os, threading; before = dict(os.environ); import fettle; fettle.Study;"
        "assert dict(os.environ) == before and threading.active_count() == 1; print(os.listdir('.'))"
    )
    argv = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=60)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "[]\n")
