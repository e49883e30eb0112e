"""The command in process, and a finished study of the demo's model, told by hand."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fettle.cli.main import main
from fettle.core.trial import Estimate, Event
from fettle.problems.serve.problem import make
from fettle.study import Study

MODELS = Path(str(files("fettle.data")))
HOSTILE = "\x1b[31mred\x1b[0m\x1b]0;title\x07 <script>alert(1)</script> [bold red]markup[/] \u202eevil\nnew line"


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """What --json printed; strict JSON."""

        def refuse(word: str) -> Any:
            raise AssertionError(f"{word} is not JSON")

        loaded: dict[str, Any] = json.loads(self.out, parse_constant=refuse)
        return loaded


Fettle = Callable[..., Ran]


@pytest.fixture
def fettle(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fettle:
    """fettle("list", "--json") -> exit code, stdout, stderr of the command's own `main`."""

    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["fettle", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ran(ended.value.code, out, err)

    return run


def check(name: str, document: Any) -> None:
    """The document fits the schema of that name that ships."""
    schema = json.loads(files("fettle.schemas").joinpath(f"{name}.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)


def figures(rate: float) -> dict[str, Any]:
    cost = 0.07 / (3600 * rate) * 1e6
    return {
        "throughput_rps": Estimate(rate, 0.95 * rate, 1.05 * rate, 3),
        "latency_p50_s": 0.008,
        "latency_p99_s": Estimate(0.045, 0.04, 0.05, 900),
        "error_ratio": 0.0,
        "rss_bytes": 2.0e8,
        "cost_per_hour": 0.07,
        "cost_per_million": Estimate(cost, 0.95 * cost, 1.05 * cost, 3),
    }


def confirmation(number: int, rate: float, wall_s: float = 9.0) -> Event:
    cost = 0.07 / (3600 * rate) * 1e6
    payload = {
        "source": "confirm",
        "passed": True,
        "metrics": {k: v.value if isinstance(v, Estimate) else v for k, v in figures(rate).items()},
        "intervals": {"throughput_rps": [0.95 * rate, 1.05 * rate, 3], "cost_per_million": [0.95 * cost, None, 3]},
        "prediction": {"throughput_rps": [0.9 * rate, 1.1 * rate]},
        "rounds": [{"throughput_rps": rate}],
        "ratio": {"metric": "cost_per_million", "value": 0.5, "low": 0.45, "high": 0.55},
        "wall_s": wall_s,
    }
    return Event("remeasured", number, payload, time.time())


def finished_study(storage: Path, name: str = "digits") -> None:
    """Defaults, a winner, an infeasible trial and a failed one with hostile words; defaults and winner confirmed."""
    problem = make(
        {"fp32": MODELS / "digits-fp32.onnx", "int8": MODELS / "digits-int8.onnx"},
        slo="p99=50ms",
        inputs=MODELS / "digits-samples.npz",
    )
    study = Study(
        problem.space,
        objectives=problem.objectives,
        constraints=problem.constraints,
        storage=storage,
        name=name,
        experiment={**problem.record(), "budget": {"seconds": 60.0, "trials": 5}, "created_s": 0.0},
    )
    study.enqueue(problem.defaults(), note="the server's defaults", baseline=True)
    study.tell(study.ask(), figures(100.0))
    study.tell(study.ask(), figures(200.0))
    slow = study.ask()
    study.tell(slow, {**figures(300.0), "latency_p99_s": 0.2})
    study.tell(study.ask(), error=f"the server said {HOSTILE}", failure="crash")
    study.record([confirmation(0, 100.0), confirmation(1, 200.0)])
    study.close()


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    finished_study(folder / "fettle.db")
    return folder


@pytest.fixture
def finished(_finished: Path, tmp_path: Path) -> Iterator[Path]:
    """The storage of a finished study named digits, in the working folder; read and written by this test alone."""
    for file in _finished.glob("fettle.db*"):
        if file.is_file():
            shutil.copy(file, tmp_path)
    yield tmp_path / "fettle.db"


def events(storage: Path, name: str = "digits") -> list[Event]:
    from fettle.storage.sql import SqlStorage

    opened = SqlStorage(storage, must_exist=True)
    found = list(opened.open(name).read())
    opened.close()
    return found
