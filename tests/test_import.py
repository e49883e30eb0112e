"""`import fettle` is cheap and inert."""

import json
import subprocess
import sys

import fettle

HEAVY = ("torch", "ray", "numpy", "scipy", "onnx", "onnxruntime", "rich", "click", "jinja2", "yaml", "sqlite3")


def test_importing_pulls_nothing_heavy() -> None:
    code = f"import fettle, sys, json; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == []


def test_every_public_name_resolves() -> None:
    for name in fettle.__all__:
        assert getattr(fettle, name) is not None, name
    assert set(fettle.__all__) <= set(dir(fettle))


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(fettle, "nothing_of_that_name")


def test_searching_a_function_pulls_neither_torch_nor_the_serving_stack() -> None:
    code = """
import sys, json, fettle
study = fettle.Study(fettle.Space(x=fettle.Float(0, 1)), objectives=["loss"])
trial = study.ask(); study.tell(trial, {"loss": 1.0})
print(json.dumps([m for m in ("torch", "ray", "onnx", "onnxruntime", "scipy.stats", "rich") if m in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == []
