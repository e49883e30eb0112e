"""Bad input: exit code 2, one message with the mend, no traceback, and what is stored stays as it is."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fettle as package
from fettle.problems.serve.problem import make
from fettle.study import Study

from .conftest import MODELS, Fettle, Ran, check, confirmation, events, figures

DIGITS = MODELS / "digits-fp32.onnx"
SLO = "p99=50ms"


def refused(ran: Ran, *words: str) -> None:
    """One message and its mend on stderr, nothing on stdout."""
    assert ran.code == 2, ran
    assert ran.out == ""
    assert ran.err.startswith("fettle: ")
    assert "Traceback" not in ran.err
    message, _, mend = ran.err.removeprefix("fettle: ").partition("\n")
    assert message.strip() and mend.strip(), ran.err
    for word in words:
        assert word in ran.err, ran.err


def refused_as_json(ran: Ran) -> None:
    assert ran.code == 2, ran
    assert ran.err == ""
    check("error", ran.document)
    assert ran.document["hint"]


def broken_file(folder: Path) -> Path:
    (folder / "broken.onnx").write_bytes(b"this is no model at all, only some words in a file" * 20)
    return folder / "broken.onnx"


def truncated(folder: Path) -> Path:
    (folder / "cut.onnx").write_bytes(DIGITS.read_bytes()[:20_000])
    return folder / "cut.onnx"


def new_opset(folder: Path) -> Path:
    import onnx

    model = onnx.load(str(DIGITS))
    model.opset_import[0].version = 99
    onnx.save(model, str(folder / "new.onnx"))
    return folder / "new.onnx"


def open_shape(folder: Path) -> Path:
    from onnx import TensorProto, helper, save

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "width"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "open", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    save(model, str(folder / "open.onnx"))
    return folder / "open.onnx"


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda folder: folder / "missing.onnx", "no such file"),
        (lambda folder: folder, "folder"),
        (broken_file, "ONNX"),
        (truncated, "cut.onnx"),
        (new_opset, "opset"),
        (open_shape, "--input-shape x=1,64"),
    ],
    ids=["missing", "folder", "not a model", "truncated", "opset", "open shape"],
)
def test_models(make: Callable[[Path], Path], word: str, fettle: Fettle, tmp_path: Path) -> None:
    refused(fettle("serve", make(tmp_path), "--slo", SLO), word)
    refused_as_json(fettle("serve", make(tmp_path), "--slo", SLO, "--json"))
    assert not (tmp_path / "fettle.db").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--slo", "p98=50ms"], ["p98", "p99.9"]),
        (["--slo", "p99=50"], ["unit", "ms"]),
        (["--slo", "p99:50ms"], ["p99:50ms", "p99=50ms"]),
        (["--slo", "p99=0ms"], ["positive"]),
        (["--slo", ""], ["SLO"]),
        (["--budget", "0"], ["above 0", "5m"]),
        (["--budget", "-5m"], ["-5m"]),
        (["--budget", "soon"], ["soon", "5m"]),
        (["--trials", "0"], ["--trials"]),
        (["--trials", "many"], ["many"]),
        (["--seed", "-1"], ["-1"]),
        (["--objective", "speed"], ["speed", "throughput"]),
        (["--objective", "cost,cost"], ["once"]),
        (["--objective", ""], ["objective"]),
        (["--rate", "0"], ["rate"]),
        (["--rate", "nan"], ["rate"]),
        (["--cores", "0"], ["cores"]),
        (["--cores", "100000"], ["cores"]),
        (["--memory", "1"], ["--memory", "16"]),
        (["--arrivals", "bursty"], ["bursty"]),
        (["--target", "mosek"], ["mosek", "mosec"]),
        (["--algorithm", "evolutoin"], ["evolutoin", "evolution"]),
        (["--fix", "workers"], ["workers", "NAME=VALUE"]),
        (["--fix", "worker=2"], ["worker", "workers"]),
        (["--fix", "workers=many"], ["workers", "many"]),
        (["--fix", "workers=1", "--fix", "workers=2"], ["twice"]),
        (["--fix", "workers=1", "--param", "workers=1,2"], ["both"]),
        (["--param", "graph_optimization=fast"], ["fast", "basic"]),
        (["--param", "workers=,"], ["workers", "at least one"]),
        (["--param", "max_batch=1,3"], ["max_batch", "3"]),
        (["--fix", "batching=off", "--param", "max_wait_ms=3"], ["max_wait_ms", "3"]),
        (["--inputs", "missing.npz"], ["missing.npz"]),
        (["--inputs", "."], ["npz"]),
        (["--input-shape", "image=1,x"], ["image", "1,3,64,64"]),
        (["--input-shape", "picture=1,1,64,64"], ["picture", "image"]),
        (["--input-shape", "image=1,3,7,7"], ["image"]),
        (["--prices", "missing.yaml"], ["missing.yaml"]),
        (["--model-variant", "int8"], ["int8", "NAME=VALUE"]),
        (["--model-variant", "int8=missing.onnx"], ["missing.onnx"]),
        (["--command", "srv {port}"], ["--target command"]),
        (["--ready", "/health"], ["--target command"]),
        (["--target", "command"], ["--command", "--space"]),
        (["--name", ""], ["name"]),
        (["--name", "a\x1b[31mb"], ["name", "--name"]),
        (["--storage", "postgres://host/db"], ["postgres"]),
        (["--nmae", "x"], ["--nmae"]),
    ],
    ids=lambda given: " ".join(map(str, given))[:40],
)
def test_options(words: list[str], named: list[str], fettle: Fettle, tmp_path: Path) -> None:
    slo = [] if "--slo" in words else ["--slo", SLO]
    ran = fettle("serve", DIGITS, *slo, *words)
    refused(ran, *named)
    assert "\x1b" not in ran.err
    assert not (tmp_path / "fettle.db").exists() or fettle("list", "--json").document["studies"] == []


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "word"),
    [
        ("image", (4, 3, 7, 7), "float32", "shape"),
        ("picture", (4, 1, 72, 72), "float32", "picture"),
        ("image", (0, 1, 72, 72), "float32", "image"),
        ("image", (4, 1, 72, 72), "U3", "image"),
    ],
)
def test_samples(name: str, shape: tuple[int, ...], dtype: str, word: str, fettle: Fettle) -> None:
    np.savez("samples.npz", **{name: np.zeros(shape, dtype)})
    refused(fettle("serve", DIGITS, "--slo", SLO, "--inputs", "samples.npz"), word)


def test_samples_are_not_unpickled(fettle: Fettle, tmp_path: Path) -> None:
    np.savez("samples.npz", image=np.array([{"an": "object"}], dtype=object))
    refused(fettle("serve", DIGITS, "--slo", SLO, "--inputs", "samples.npz"), "samples.npz")


SPACE = "space: {threads: {int: [1, 4]}, a: {choice: {p: {n: {int: [1, 2]}}, q: {n: {int: [1, 2]}}}}}\n"


@pytest.mark.parametrize(
    ("words", "space", "named"),
    [
        (["--command", "srv --port 8080"], SPACE, ["{port}"]),  # a fixed port may be taken by another program
        (["--command", "srv {port} {thread}"], SPACE, ["thread", "threads"]),
        (["--command", "srv {port} 'open"], SPACE, ["quotes"]),
        (["--command", "srv {port}", "--ready", "http://elsewhere/"], SPACE, ["--ready"]),
        (["--command", "srv {port}", "--body", "missing.bin"], SPACE, ["missing.bin"]),
        (["--command", "srv {port}"], "space: [1, 2]\n", ["space"]),
        (["--command", "srv {port}"], "space: {threads: {int: [4, 1]}}\n", ["low <= high"]),
        (["--command", "srv {port}"], "space: {t: {int: [1, 2]}}\nspaces: {}\n", ["spaces"]),
        (["--command", "srv {port}"], "{ not yaml", ["space.yaml"]),
        (["--command", "srv {port}", "--fix", "n=1"], SPACE, ["ambiguous", "a.p.n", "a.q.n"]),
    ],
    ids=lambda given: " ".join(given)[:40] if isinstance(given, list) else None,
)
def test_the_command_target(words: list[str], space: str, named: list[str], fettle: Fettle, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(space)
    refused(fettle("serve", DIGITS, "--slo", SLO, "--target", "command", "--space", "space.yaml", *words), *named)


GOOD: dict[str, Any] = {"problem": "serve", "model": str(DIGITS), "slo": SLO}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (json.dumps({**GOOD, "budgt": "5m"}), ["budgt", "budget"]),
        (json.dumps({**GOOD, "problem": "swerve"}), ["problem", "serve"]),
        (json.dumps({"problem": "serve", "slo": SLO}), ["model"]),
        (json.dumps({**GOOD, "slo": {"p98": "50ms"}}), ["slo", "p98"]),
        (json.dumps({**GOOD, "budget": "0"}), ["above 0"]),
        (json.dumps({**GOOD, "trials": 0}), ["trials"]),
        (json.dumps({**GOOD, "model": "missing.onnx"}), ["missing.onnx"]),
        (json.dumps({**GOOD, "fix": {"worker": 1}}), ["worker", "workers"]),
        (json.dumps({**GOOD, "param": {"workers": 2}}), ["param.workers"]),
        (json.dumps({**GOOD, "command": {"command": "srv {port}", "space": "s.yaml"}}), ["target"]),
        (json.dumps({**GOOD, "target": "command"}), ["command"]),
        (json.dumps({**GOOD, "memory_limit": "much"}), ["memory_limit"]),
        (json.dumps({**GOOD, "algorithm": {"name": "evolution", "populaton": 3}}), ["populaton", "population"]),
        ("[1, 2]", ["mapping"]),
        ("", ["mapping"]),
        ("{ not: yaml", ["YAML"]),
        ("!!python/object/apply:os.system ['touch hacked']", ["YAML"]),
    ],
    ids=lambda given: given[-40:] if isinstance(given, str) else None,
)
def test_experiment_files(text: str, named: list[str], fettle: Fettle, tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(text)
    refused(fettle("run", "experiment.yaml"), *named)
    refused_as_json(fettle("run", "experiment.yaml", "--json"))
    assert not (tmp_path / "hacked").exists()


def test_an_experiment_that_is_not_there(fettle: Fettle, tmp_path: Path) -> None:
    refused(fettle("run", "missing.yaml"), "missing.yaml")
    refused(fettle("run", tmp_path), str(tmp_path))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    refused(fettle("run", "binary.yaml"), "binary.yaml")


@pytest.mark.parametrize(
    "words",
    [["show"], ["best"], ["resume"], ["report"], ["measure", "--trial", "0"], ["export", "somewhere"]],
    ids=lambda words: words[0],
)
def test_unknown_studies(words: list[str], fettle: Fettle, finished: Path, tmp_path: Path) -> None:
    command, *more = words
    more_first = [more] if command != "export" else []
    refused(fettle(command, "digit", *(more_first[0] if more_first else more)), "digit", "digits")
    refused_as_json(fettle(command, "digit", *more, "--json"))
    refused(fettle(command, "digits", *more, "--storage", "other.db"), "other.db", "--storage")
    assert not (tmp_path / "other.db").exists()  # looking does not make one


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], ["--trial", "--params"]),
        (["--trial", "0", "--params", "{}"], ["--trial", "--params"]),
        (["--trial", "99"], ["99", "0 to 3"]),
        (["--trial", "-1"], ["-1"]),
        (["--trial", "one"], ["one"]),
        (["--trial", "0", "--repeat", "0"], ["repeat"]),
        (["--params", "{workers: 2}"], ["JSON"]),
        (["--params", "[1]"], ["object"]),
        (["--params", '{"workers": 2}'], ["threads"]),
        (["--params", '{"wrokers": 2}'], ["wrokers"]),
        (["--params", '{"\\u001b[31m": 2}'], ["unknown"]),
    ],
    ids=lambda given: " ".join(given)[:40],
)
def test_measure(words: list[str], named: list[str], fettle: Fettle, finished: Path) -> None:
    before = events(finished)
    ran = fettle("measure", "digits", *words)
    refused(ran, *named)
    assert "\x1b" not in ran.err
    refused_as_json(fettle("measure", "digits", *words, "--json"))
    assert events(finished) == before


def test_places_that_cannot_be_written(fettle: Fettle, finished: Path, tmp_path: Path) -> None:
    """A file where a folder has to be: what root cannot write to, either."""
    before = events(finished)
    (tmp_path / "file").write_text("kept")
    refused(fettle("export", "digits", "file"), "file", "folder")
    refused(fettle("export", "digits", "file/below"), "folder")
    refused(fettle("report", "digits", "-o", "file/report.html"), "report", "-o")
    refused(fettle("serve", DIGITS, "--slo", SLO, "--storage", "file/fettle.db"), "storage")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("kept")
    refused(fettle("export", "digits", "full"), "not empty")
    assert (tmp_path / "file").read_text() == (tmp_path / "full" / "precious").read_text() == "kept"
    assert events(finished) == before


def test_a_storage_that_is_no_database(fettle: Fettle, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but precious " * 100)
    for words in (["list"], ["show", "x"], ["serve", DIGITS, "--slo", SLO]):
        refused(fettle(*words, "--storage", "notes.txt"), "notes.txt", "--storage")
    assert (tmp_path / "notes.txt").read_text().startswith("not a database, but precious")


def test_another_search_under_the_same_name(fettle: Fettle, finished: Path) -> None:
    before = events(finished)
    both = ["--model-variant", f"int8={MODELS / 'digits-int8.onnx'}", "--name", "digits"]
    refused(fettle("serve", DIGITS, "--slo", "p99=10ms", *both), "constraints", "another name")
    refused(fettle("serve", DIGITS, "--slo", SLO, "--name", "digits"), "precision", "another name")
    assert events(finished) == before


def test_a_model_that_has_changed_or_gone(fettle: Fettle, tmp_path: Path) -> None:
    """Nothing is measured with it any more, but the answer is still read."""
    model = tmp_path / "model.onnx"
    model.write_bytes(DIGITS.read_bytes())
    problem = make(model, slo=SLO)
    study = Study(
        problem.space,
        objectives=problem.objectives,
        constraints=problem.constraints,
        storage="fettle.db",
        name="changed",
        experiment=problem.record(),
    )
    study.tell(study.ask(), figures(100.0))
    study.record([confirmation(0, 100.0)])
    model.write_bytes((MODELS / "digits-int8.onnx").read_bytes())
    refused(fettle("resume", "changed"), "has changed", "old file")
    model.unlink()
    refused(fettle("measure", "changed", "--trial", "0"), "no such file")
    assert fettle("best", "changed", "--json").document["feasible"]


def test_a_study_of_a_python_function_names_its_script(fettle: Fettle) -> None:
    study = package.Study(
        package.Space(x=package.Float(0, 1)), objectives=["loss"], storage="fettle.db", name="mine", algorithm="random"
    )
    study.tell(study.ask(), {"loss": 0.5})
    refused(fettle("resume", "mine"), "script")
    assert fettle("best", "mine", "--json").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["serve", "missing.onnx", "--slo", SLO],
        ["show", "nothing"],
        ["run", "missing.yaml"],
        ["no-such-command"],
    ],
    ids=lambda words: words[0],
)
def test_the_real_command(words: list[str]) -> None:
    """As a user runs it: a process of its own."""
    for as_json in ([], ["--json"]):
        argv = [sys.executable, "-m", "fettle.cli.main", *words, *as_json]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        ran = Ran(done.returncode, done.stdout, done.stderr)
        refused_as_json(ran) if as_json else refused(ran)
