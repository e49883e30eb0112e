"""The script that makes the shipped model still makes one as good."""

import importlib.util
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "examples" / "make_digits_model.py"


def check(figures: dict[str, dict[str, float]]) -> None:
    assert figures["accuracy"]["fp32"] >= 0.97
    assert figures["accuracy"]["int8"] >= figures["accuracy"]["fp32"] - 0.01


def test_shipped_figures() -> None:
    check(json.loads((files("fettle.data") / "digits.json").read_text()))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn")
def test_the_script_makes_it_again(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], check=True, timeout=1500)
    check(json.loads((tmp_path / "digits.json").read_text()))
    for name in ("digits-fp32.onnx", "digits-int8.onnx"):
        assert (tmp_path / name).stat().st_size < 500_000
    assert (tmp_path / "digits-samples.npz").read_bytes()
