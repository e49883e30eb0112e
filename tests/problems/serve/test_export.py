import json
import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fettle.core.errors import InvalidInput
from fettle.core.serving import Machine, Model, Request
from fettle.core.space import Int, Space
from fettle.problems.serve.codec import decode_response
from fettle.problems.serve.export import MARK, export_server
from fettle.problems.serve.model import load_model, reference, samples
from fettle.problems.serve.targets.command import Command
from fettle.problems.serve.targets.mosec import Mosec

DATA = Path(str(files("fettle.data")))
MACHINE = Machine((0, 1), 2**32)


@pytest.fixture(scope="module")
def digits() -> Model:
    return load_model({"fp32": DATA / "digits-fp32.onnx", "int8": DATA / "digits-int8.onnx"})


def export(folder: Path, model: Model, **more: Any) -> dict[str, str]:
    target = Mosec()
    params = target.defaults(model, MACHINE) | more
    items = samples(model, n=2)
    point = {"throughput_rps": 123.0}
    return export_server(folder, model, target, params, machine=MACHINE, operating_point=point, sample_items=items)


@pytest.mark.medium
def test_the_folder_starts_without_fettle(tmp_path: Path, digits: Model, onnx_tools: Any) -> None:
    folder = tmp_path / "with space"
    export(folder, digits, precision="int8")
    port = onnx_tools.free_port()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {"PORT": str(port), "PATH": path, "PYTHONPATH": ""}
    sample = json.loads((folder / "sample/request.json").read_text())
    assert set(sample) == {"method", "path", "headers"}
    request = Request(**sample, body=(folder / "sample/request.bin").read_bytes())
    with onnx_tools.running([str(folder / "run.sh")], folder, env) as process:
        onnx_tools.await_ready(port, request, process, folder / "log")
        status, body = onnx_tools.call(port, request)
    assert status == 200
    expected = reference(digits, "int8", samples(digits, n=1))[0]["logits"]
    np.testing.assert_allclose(decode_response(body)["logits"], expected, atol=0.02)


def test_what_is_in_the_folder(tmp_path: Path, digits: Model) -> None:
    folder = tmp_path / "new" / "out"
    written = export(folder, digits, workers=2, threads=1, spinning=False)
    assert all(Path(path).exists() for path in written.values())
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert (folder / "model.onnx").read_bytes() == digits.variants["fp32"].read_bytes()
    script = (folder / "run.sh").read_text()
    assert "10007" not in script
    assert str(tmp_path) not in script
    assert sys.executable not in script
    assert subprocess.run(["sh", "-n", str(folder / "run.sh")], check=False).returncode == 0
    assert "curl" in (folder / "README.txt").read_text()
    assert "mosec==" in (folder / "requirements.txt").read_text()
    record = json.loads((folder / MARK).read_text())
    assert record["operating_point"] == {"throughput_rps": 123.0}
    assert record["params"]["workers"] == 2


def test_an_earlier_export_is_written_again_and_nothing_else(tmp_path: Path, digits: Model) -> None:
    export(tmp_path / "out", digits)
    export(tmp_path / "out", digits, precision="int8")
    assert (tmp_path / "out/model.onnx").read_bytes() == digits.variants["int8"].read_bytes()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("do not touch")
    with pytest.raises(InvalidInput, match="not empty"):
        export(tmp_path / "mine", digits)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    with pytest.raises(InvalidInput, match="got a file"):
        export(tmp_path / "mine/thesis.txt", digits)


def test_links_in_an_earlier_export_are_not_written_through(tmp_path: Path, digits: Model) -> None:
    export(tmp_path / "out", digits)
    (tmp_path / "victim").write_text("safe")
    (tmp_path / "out/run.sh").unlink()
    (tmp_path / "out/run.sh").symlink_to(tmp_path / "victim")
    export(tmp_path / "out", digits)
    assert (tmp_path / "victim").read_text() == "safe"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path, digits: Model) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(InvalidInput, match="out"):
            export(tmp_path / "out", digits)
    finally:
        tmp_path.chmod(0o755)


def test_a_folder_below_a_file_is_refused(tmp_path: Path, digits: Model) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "out", Path("/proc/fettle-export")):
        with pytest.raises(InvalidInput):
            export(folder, digits)


def test_external_data_come_along(tmp_path: Path, onnx_tools: Any) -> None:
    import onnx

    source = tmp_path / "m"
    source.mkdir()
    proto = onnx.load(str(DATA / "digits-fp32.onnx"))
    (source / "deep").mkdir()
    onnx.save(proto, str(source / "m.onnx"), save_as_external_data=True, location="deep/w.bin", size_threshold=100)
    model = load_model(source / "m.onnx")
    assert (source / "deep/w.bin").stat().st_size > 100_000
    export(tmp_path / "out", model)
    shutil.rmtree(source)
    moved = load_model(tmp_path / "out/model.onnx")
    assert moved.inputs == model.inputs


def test_a_command_can_be_exported(tmp_path: Path, digits: Model) -> None:
    target = Command("my'srv' --listen 127.0.0.1:{port} -t {threads} '$HOME x'", Space({"threads": Int(1, 2)}))
    items = samples(digits, n=1)
    export_server(tmp_path, digits, target, {"threads": 2}, machine=MACHINE, operating_point={}, sample_items=items)
    script = (tmp_path / "run.sh").read_text()
    assert """exec mysrv --listen 127.0.0.1:"$PORT" -t 2 '$HOME x'""" in script
