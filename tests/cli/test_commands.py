"""Every command on a finished study: what it prints, its exit code, and that nothing hostile acts."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import fettle as package
from fettle import api
from fettle.cli import experiment, options
from fettle.cli.main import cli
from fettle.core.space import Choice, Int, Ordinal, Space
from fettle.problems.runtimes import probe
from fettle.problems.serve.batching import narrowed
from fettle.problems.serve.problem import make

from .conftest import HOSTILE, MODELS, Fettle, check, events, finished_study

ROOT = Path(__file__).parents[2]
DIGITS = MODELS / "digits-fp32.onnx"
EXAMPLE = ROOT / "examples" / "serve-digits.yaml"


def test_version_and_help(fettle: Fettle) -> None:
    assert fettle("--version").out == f"fettle, version {package.__version__}\n"
    for command in cli.commands:
        ran = fettle(command, "--help")
        assert ran.code == 0
        assert ran.out.startswith(f"Usage: fettle {command} ")
    for short in ("-h", "--help"):
        assert all(command in fettle(short).out for command in cli.commands)


def test_every_option_says_what_it_does() -> None:
    groups = [command for command in cli.commands.values() if isinstance(command, click.Group)]
    inner = [command for group in groups for command in group.commands.values()]
    assert all(group.help and group.help.rstrip().endswith(".") for group in groups)
    for command in [*(c for c in cli.commands.values() if c not in groups), *inner]:
        assert command.help and command.help.rstrip().endswith("."), command.name
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, f"{command.name} {parameter.name}"
        if command.name != "doctor" and command not in inner:
            assert any(p.name == "storage" for p in command.params), command.name
        assert any("--json" in p.opts for p in command.params), command.name
    for command in ("serve", "run"):  # what begins a study
        names = {opt for p in cli.commands[command].params for opt in p.opts}
        assert {"--name", "--seed", "--budget", "--trials"} <= names


def test_starting_is_cheap() -> None:
    """--help and --version load nothing heavy."""
    code = "import sys; from fettle.cli.main import cli; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"numpy", "scipy", "rich", "yaml", "jinja2", "onnx", "onnxruntime"} & set(done.stdout.split())


# -- reading a finished study -------------------------------------------------------------------------------


def test_list(fettle: Fettle, finished: Path) -> None:
    ran = fettle("list", "--json")
    assert (ran.code, ran.err) == (0, "")
    check("list", ran.document)
    (listed,) = ran.document["studies"]
    assert (listed["name"], listed["state"], listed["problem"]) == ("digits", "finished", "serve")
    assert listed["trials"] == {"complete": 3, "failed": 1}
    assert listed["best"]["number"] == 1
    shown = fettle("list", "--storage", f"sqlite:///{finished.name}")
    assert shown.code == 0
    assert "digits" in shown.out and "finished" in shown.out


def test_best(fettle: Fettle, finished: Path) -> None:
    ran = fettle("best", "digits", "--json")
    assert (ran.code, ran.err) == (0, "")
    check("answer", ran.document)
    assert ran.document["trial"]["number"] == 1
    assert ran.document["trial"]["metrics"]["throughput_rps"] == 200.0
    assert ran.document["trial"]["intervals"]["cost_per_million"][1] is None  # unbounded
    assert ran.document["baseline"]["number"] == 0
    assert ran.document["gain"]["shown"]
    shown = fettle("best", "digits")
    assert shown.code == 0
    assert "200" in shown.out and "gain" in shown.out


def test_show(fettle: Fettle, finished: Path) -> None:
    ran = fettle("show", "digits", "--json")
    assert (ran.code, ran.err) == (0, "")
    check("answer", ran.document)
    assert [t["state"] for t in ran.document["trials"]] == ["complete", "complete", "complete", "failed"]
    assert ran.document["trials"][3]["failure"] == "crash"
    assert fettle("show", "digits").code == 0


def test_report_and_export(fettle: Fettle, finished: Path, tmp_path: Path) -> None:
    ran = fettle("report", "digits", "-o", "page.html", "--json")
    assert (ran.code, ran.document) == (0, {"schema": 1, "study": "digits", "report": "page.html"})
    page = (tmp_path / "page.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert fettle("report", "digits").out.strip() == str(tmp_path / "fettle.files" / "digits" / "report.html")
    ran = fettle("export", "digits", "winner", "--json")
    assert ran.code == 0
    assert Path(ran.document["artifacts"]["run"]).stat().st_mode & 0o100
    assert "run.sh" in fettle("export", "digits", "winner").out  # an earlier export may be written again
    assert set(fettle("best", "digits", "--json").document["artifacts"]) == {"report"}


def test_resuming_a_finished_study_gives_its_answer(fettle: Fettle, finished: Path) -> None:
    before = events(finished)
    ran = fettle("resume", "digits", "--json")
    assert ran.code == 0
    check("answer", ran.document)
    assert set(ran.document["artifacts"]) >= {"report", "folder", "run"}
    assert events(finished) == before


@pytest.fixture
def explained(tmp_path: Path) -> str:
    """A study of a function whose loss two of three parameters explain; one trial failed."""
    space = package.Space(
        lr=package.Float(1e-4, 1, log=True), layers=package.Int(1, 9), opt=package.Categorical(["sgd", "adam"])
    )
    study = package.Study(space, objectives=["loss"], storage="fettle.db", name="tuned", algorithm="random")
    for i, params in enumerate(space.sample(30, np.random.default_rng(0))):
        loss = 0.1 * (np.log10(params["lr"]) + 2) ** 2 + 0.05 * params["layers"]
        failed = {"error": "out of memory", "failure": "oom"}
        study.tell(params, **(failed if i == 7 else {"metrics": {"loss": float(loss), "size_bytes": 1e6}}))
    study.close()
    return "tuned"


def test_explain(fettle: Fettle, explained: str) -> None:
    ran = fettle("explain", explained, "--json")
    assert (ran.code, ran.err) == (0, "")
    check("explain", ran.document)
    (goal,) = ran.document["objectives"]
    assert (goal["verdict"], goal["trials"], ran.document["trials"]) == ("explained", 29, 30)
    assert {p["name"] for p in goal["parameters"][:2]} == {"lr", "layers"}
    assert {curve["name"] for curve in goal["curves"]} == {"lr", "layers"}
    assert ran.document["regret"]["metric"] == "loss"
    assert ran.document["prediction"] is None
    shown = fettle("explain", explained)
    assert shown.code == 0
    assert "lr explains" in shown.out and "could still be gained" in shown.out and "with interactions" in shown.out


def test_explain_predicts_any_params(fettle: Fettle, explained: str) -> None:
    params = '{"lr": 0.01, "layers": 4, "opt": "sgd"}'
    ran = fettle("explain", explained, "--json", "--params", params)
    assert ran.code == 0
    check("explain", ran.document)
    made = ran.document["prediction"]["metrics"]
    assert list(made) == ["loss", "size_bytes", "failure_ratio"]
    assert made["loss"]["low"] <= 0.2 <= made["loss"]["high"]
    assert "chance of failure" in fettle("explain", explained, "--params", params).out
    for wrong, says in (("{", "JSON"), ("[1]", "object"), ('{"lr": 5}', "missing"), ('{"lr": 0.1, "n": 1}', "unknown")):
        ran = fettle("explain", explained, "--params", wrong, "--json")
        assert ran.code == 2, wrong
        check("error", ran.document)
        assert says in ran.document["error"]


def test_explain_says_so_where_it_knows_too_little(fettle: Fettle, finished: Path) -> None:
    ran = fettle("explain", "digits", "--json")
    assert ran.code == 0
    check("explain", ran.document)
    assert {goal["verdict"] for goal in ran.document["objectives"]} == {"too few"}
    assert ran.document["regret"] is None
    assert ran.document["limits"]["limit"] == "unknown" and ran.document["origins"]["best"] == "search"
    shown = fettle("explain", "digits").out
    assert "Nothing can be said" in shown and "What limits trial 1 is unknown" in shown
    assert fettle("explain", "digits", "--params", "{}").code == 2


def test_doctor(fettle: Fettle) -> None:
    ran = fettle("doctor", "--json")
    assert ran.code == (0 if ran.document["ok"] else 1)
    assert {"onnx", "onnxruntime", "mosec", "cgroup", "cores"} <= {c["name"] for c in ran.document["checks"]}
    assert all(c["mend"] for c in ran.document["checks"])
    assert fettle("doctor").code == ran.code


def test_doctor_keeps_a_probe(fettle: Fettle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speed = {"cores": 2.0, "flops_fp32_all": 4.8e11, "bandwidth_all": 2e10}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(probe, "machine_features", lambda machine: speed)
    assert fettle("doctor", "--json").document["probe"] == {}
    assert "480 GFLOP/s" in fettle("doctor", "--probe").out
    assert fettle("doctor", "--json").document["probe"] == speed


@pytest.mark.parametrize(
    ("rates", "code", "holds"),
    [
        ([200.0] * 8 + [100.0] * 2, 0, True),
        ([200.0] * 7 + [100.0] * 3, 1, False),
        ([100.0] * 2, 0, None),  # too few to tell
    ],
)
def test_a_prediction_that_does_not_hold_ends_with_1(
    rates: list[float], code: int, holds: bool | None, fettle: Fettle, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*words: Any, **more: Any) -> list[dict[str, Any]]:
        noise = {"noise": {"foreign_ratio": 0.02}}
        return [{"state": "complete", "metrics": {"throughput_rps": r}, "artifacts": noise} for r in rates]

    monkeypatch.setattr(api, "measure", measured)
    ran = fettle("measure", "digits", "--trial", "1", "--repeat", len(rates), "--json")
    assert ran.code == code
    check("measure", ran.document)
    assert ran.document["prediction"]["throughput_rps"]["holds"] is holds
    shown = fettle("measure", "digits", "--trial", "1", "--repeat", len(rates))
    assert shown.code == code
    assert f"of {len(rates)} inside" in shown.out


def test_a_resumed_study_warns_of_another_machine(
    fettle: Fettle, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fettle.cli import doctor

    stored: dict[str, Any] = dict(events(finished)[0].payload["fingerprint"])
    assert doctor.differences(stored) == []
    assert doctor.differences({**stored, "cores": 977}) == [
        f"cores was 977 when the study began, now it is {stored['cores']}"
    ]
    monkeypatch.setattr(doctor, "differences", lambda stored: ["cpu was \x1b[31mother"])
    ran = fettle("resume", "digits")
    assert ran.code == 0
    assert "fettle: warning: cpu was" in ran.err and "\x1b" not in ran.err


def test_no_feasible_answer_ends_with_1(fettle: Fettle) -> None:
    space = package.Space(x=package.Float(0, 1))
    limit = [package.Constraint("latency_p99_s", upper=0.01)]
    study = package.Study(space, objectives=["loss"], constraints=limit, storage="fettle.db", name="tight")
    for words in (["best"], ["show"]):
        assert fettle(words[0], "tight", "--json").code == (1 if words == ["best"] else 0)  # nothing was run yet
    study.tell(study.ask(), {"loss": 0.5, "latency_p99_s": 0.02})
    ran = fettle("best", "tight", "--json")
    assert ran.code == 1
    check("answer", ran.document)
    assert (ran.document["trial"], ran.document["feasible"]) == (None, False)
    assert "0.02" in ran.document["reason"]
    assert fettle("best", "tight").code == 1
    assert fettle("export", "tight", "folder", "--json").code == 2


def test_interrupted(fettle: Fettle, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*words: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "open_study", interrupt)
    ran = fettle("resume", "digits")
    assert (ran.code, ran.out) == (130, "")
    assert "fettle resume" in ran.err
    ran = fettle("resume", "digits", "--json")
    assert ran.code == 130
    check("error", ran.document)


# -- what is hostile stays inert ------------------------------------------------------------------------------

_ACTS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[str]:
    name = "<script>alert(1)</script> [bold red]x[/] $(id) ../../up"
    finished_study(tmp_path / "fettle.db", name)
    space = package.Space({"\x1b[31mx": package.Categorical(["[red]a[/]", "\u202eb\nc"])})
    study = package.Study(space, objectives=["[blink]loss[/]"], storage="fettle.db", name="other", algorithm="random")
    study.tell(study.ask(), {"[blink]loss[/]": 1.0})
    study.tell(study.ask(), error=HOSTILE)
    yield name


def test_hostile_words_do_nothing(hostile: str, fettle: Fettle, tmp_path: Path) -> None:
    for words in (["list"], ["show", hostile], ["best", hostile], ["show", "other"], ["best", "other"]):
        ran = fettle(*words)
        assert ran.code == 0, ran
        assert not _ACTS.search(ran.out + ran.err)
        as_json = fettle(*words, "--json")
        assert not _ACTS.search(as_json.out), "JSON escapes what acts in a terminal"
        assert as_json.document
    assert "[bold red]x[/]" in fettle("list").out, "shown as it is, not taken as markup"
    assert "[red]a[/]" in fettle("show", "other").out or "b c" in fettle("show", "other").out
    page = Path(fettle("report", hostile, "--json").document["report"])
    assert page.is_relative_to(tmp_path / "fettle.files")
    assert "<script>alert(1)" not in page.read_text()
    ran = fettle("show", HOSTILE)
    assert ran.code == 2
    assert not _ACTS.search(ran.err.replace("\n", ""))


# -- options, as they are written -----------------------------------------------------------------------------


def _arguments(*words: object) -> dict[str, Any]:
    with cli.commands["serve"].make_context("serve", [str(word) for word in words]) as context:
        given = dict(context.params)
    del given["as_json"]
    return options.serve_arguments(given.pop("model"), given)


def test_options_reach_the_function() -> None:
    words = "--slo p99=50ms --objective cost,latency --trials 7 --name S --target mosec --fix cores=2 --budget 90s"
    more = "--param max_batch=1,2,4 --inputs s.npz --input-shape image=1,3,64,64 --memory 512 --seed 3 --rate 20"
    made = _arguments("model.onnx", *words.split(), *more.split())
    assert made["model"] == "model.onnx"
    assert (made["objective"], made["trials"], made["name"], made["target"]) == ("cost,latency", 7, "S", "mosec")
    assert (made["fix"], made["params"]) == ({"cores": "2"}, {"max_batch": ["1", "2", "4"]})
    assert (made["inputs"], made["input_shapes"]) == ("s.npz", {"image": [1, 3, 64, 64]})
    assert (made["memory_bytes"], made["seed"], made["rate"], made["budget"]) == (512 << 20, 3, 20.0, "90s")
    assert _arguments("model.onnx", "--slo", "p99=50ms", "--stop-regret", "0.001")["stop_regret"] == 0.001


def test_variants_take_the_model_along(tmp_path: Path) -> None:
    made = _arguments(DIGITS, "--slo", "p99=50ms", "--model-variant", "int8=other.onnx")
    assert made["model"] == {"fp32": str(DIGITS), "int8": "other.onnx"}
    assert next(iter(made["model"])) == "fp32", "the first one is the reference"
    (tmp_path / "space.yaml").write_text("space: {n: {int: [1, 2]}}\n")
    words = ["--target", "command", "--command", "srv {port} {n}", "--space", "space.yaml", "--path", "/infer"]
    target = _arguments(DIGITS, "--slo", "p99=50ms", *words)["target"]
    expected = {"name": "command", "command": "srv {port} {n}", "path": "/infer", "space": str(tmp_path / "space.yaml")}
    assert target == expected


SPACE = Space(
    {
        "workers": Int(1, 4),
        "batching": Choice(off=Space(), on=Space(max_batch=Ordinal([2, 4, 8]), max_wait_ms=Ordinal([1, 5]))),
    }
)


@pytest.mark.parametrize(
    ("fix", "params", "batches"),
    [
        ({}, {"max_batch": ["1", "2", "4"]}, {None, 2, 4}),
        ({}, {"max_batch": [1, 8]}, {None, 8}),
        ({}, {"max_batch": ["2", "4"]}, {2, 4}),
        ({}, {"max_batch": [1]}, {None}),
        ({"max_batch": "4"}, {}, {4}),
        ({"max_batch": 1}, {}, {None}),
        ({}, {"batching.on.max_batch": ["1", "2"]}, {None, 2}),
        ({"batching": "off"}, {}, {None}),
        ({"batching": False}, {}, {None}),  # YAML reads off as false
        ({"batching": True}, {"max_batch": [2]}, {2}),
        ({}, {"batching": [False, True], "max_batch": [8]}, {None, 8}),
        ({"workers": 2}, {"max_wait_ms": ["5"]}, {None, 2, 4, 8}),
    ],
)
def test_a_max_batch_of_1_is_no_batching(fix: Any, params: Any, batches: set[int | None]) -> None:
    found = list(narrowed(SPACE, fix, params).enumerate())
    assert {p.get("batching.on.max_batch") for p in found} == batches
    assert {p["batching"] for p in found} == {"off" if b is None else "on" for b in batches}
    assert all(p["workers"] == 2 for p in found) or "workers" not in fix


# -- experiment files -----------------------------------------------------------------------------------------


def test_the_example_is_valid_and_means_what_it_says() -> None:
    problem, given = experiment.read(EXAMPLE)
    assert problem == "serve"
    assert given["slo"] == {"p99": "50ms", "errors": "1%"}
    assert Path(given["model"]["fp32"]).resolve() == DIGITS.resolve()
    made = make(**{k: v for k, v in given.items() if k not in ("name", "budget", "trials", "storage", "algorithm")})
    assert str(made.slo) == "p99=50ms,errors=1%"
    assert {p["graph_optimization"] for p in made.space.sample(20, np.random.default_rng(0))} == {"all"}


def test_what_an_experiment_file_may_say(tmp_path: Path) -> None:
    text = """
problem: serve
model: models/m.onnx
slo: {p99: 0.05, errors: 0.02}
objective: [cost, latency]
budget: 90
memory_limit: 512MiB
prices: {currency: EUR}
input_shape: {x: [1, 3]}
fix: {batching: off}
storage: here/s.db
target: command
command: {command: 'srv {port}', space: space.yaml, headers: {X-Key: a}}
"""
    (tmp_path / "e.yaml").write_text(text)
    _, given = experiment.read(tmp_path / "e.yaml")
    assert given["model"] == str(tmp_path / "models/m.onnx")
    assert given["memory_bytes"] == 512 << 20
    assert given["prices"] == {"currency": "EUR"}
    assert given["input_shapes"] == {"x": [1, 3]}
    assert given["storage"] == str(tmp_path / "here/s.db")
    assert given["target"]["space"] == str(tmp_path / "space.yaml")
    assert given["target"]["headers"] == {"X-Key": "a"}


def test_the_words_of_a_command_come_before_those_of_its_file(fettle: Fettle, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def serve(**given: Any) -> None:
        seen.update(given)
        raise package.InvalidInput("enough", "seen")

    monkeypatch.setattr(api, "serve", serve)
    assert fettle("run", EXAMPLE, "--budget", "20s", "--trials", "2", "--name", "n", "--seed", "5").code == 2
    assert (seen["budget"], seen["trials"], seen["name"], seen["seed"]) == ("20s", 2, "n", 5)
    assert seen["storage"] == "fettle.db"
    assert fettle("run", EXAMPLE, "--storage", "other.db").code == 2
    assert (seen["budget"], seen["name"], seen["storage"]) == ("3m", "digits", "other.db")
