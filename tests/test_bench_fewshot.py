"""The few-shot benchmark on the project's own measurements: what a find is worth, resuming, and what is said of it."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import fewshot
import fewshot_figures
import fewshot_live
import fewshot_own
import make_results

from fettle.core.space import Categorical, Ordinal, Params, Space
from fettle.problems.serve.collect import rows
from fettle.problems.serve.cost import Prices

SPACE = Space(workers=Ordinal([1, 2]), max_batch=Ordinal([1, 2, 4, 8]), precision=Categorical(["fp32", "int8"]))
MODELS = ("large", "small", "half", "middle")
LUCKY: Params = {"workers": 1, "max_batch": 4, "precision": "fp32"}


def truth(model: str, params: Params) -> dict[str, float]:
    size = 10.0 ** (MODELS.index(model) + 1)
    batch, workers = params["max_batch"], params["workers"]
    rate = size * batch**0.5 * (1.6 if workers == 2 else 1.0) * (1.5 if params["precision"] == "int8" else 1.0)
    p99 = workers * batch / rate
    return {"throughput_rps": rate, "latency_p50_s": p99 / 1.2, "latency_p99_s": p99, "rss_bytes": 2.0**30 * workers}


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """Three whole grids and a half; a point's first measurement is once three times too lucky; one point fails."""
    path, at = tmp_path / "rows.jsonl", 0.0
    writer = rows.Writer(path)
    header = {"schema": rows.SCHEMA, "space": SPACE.to_json(), "settings": {}, "fingerprint": {}}
    writer.append("header", {**header, "probe": {"cores": 2.0}})
    for i, model in enumerate(MODELS):
        writer.append("model", {"name": model, "features": {"flops": 10.0 ** (9 - i), "depth": 3.0 + i}})

    def add(model: str, params: Params, repeat: int, metrics: Mapping[str, float], **more: Any) -> None:
        nonlocal at
        at += 0.5
        line = {"model": model, "params": params, "repeat": repeat, "metrics": metrics, "tries": 1, "seconds": 0.3}
        writer.append("row", {**line, "foreign": 0.0, "at": at, **more})

    for params in SPACE.enumerate():
        for model in MODELS:
            if model == "half" and params["max_batch"] > 2:
                continue
            figures = truth(model, params)
            if model == "large" and params == {"workers": 2, "max_batch": 8, "precision": "int8"}:
                add(model, params, 0, {}, failure="oom", seconds=0.0)
                continue
            luck = 3.0 if model == "large" and params == LUCKY else 1.0
            add(model, params, 0, figures | {"throughput_rps": luck * figures["throughput_rps"]})
    for repeat in (1, 2):
        add("large", LUCKY, repeat, truth("large", LUCKY))
    writer.close()
    return path


def test_cases_are_judged_by_repeats_under_three_slos(measured: Path, tmp_path: Path) -> None:
    cases = list(fewshot_own.own(measured))
    assert [c.group for c in cases] == ["middle"] * 6 + ["small"] * 6 + ["large"] * 6  # by FLOPs, without the half one
    case = next(c for c in cases if c.name == "large|throughput_rps|loose")
    limit = 8.0 * min(truth("large", p)["latency_p99_s"] for p in SPACE.enumerate())
    best = max(
        truth("large", p)["throughput_rps"]
        for p in SPACE.enumerate()
        if truth("large", p)["latency_p99_s"] <= limit and p != {"workers": 2, "max_batch": 8, "precision": "int8"}
    )
    assert case.best == pytest.approx(best)  # neither what fails nor the lucky measurement
    replay = fewshot.Replay.of(case, 0)
    assert replay.trial(0, LUCKY).metrics["throughput_rps"] == pytest.approx(
        3.0 * truth("large", LUCKY)["throughput_rps"]
    )
    assert replay.share(LUCKY) == pytest.approx(truth("large", LUCKY)["throughput_rps"] / best)
    told = {fewshot.Replay.of(case, s).trial(0, LUCKY).metrics["throughput_rps"] for s in range(20)}
    assert len(told) == 2
    assert {t.name for t in case.others} == {"small", "half", "middle"}
    (bound,) = case.bounds(case.others[0])
    other = case.others[0].name
    assert bound.upper == pytest.approx(8.0 * min(truth(other, p)["latency_p99_s"] for p in SPACE.enumerate()))
    zipped = tmp_path / "rows.jsonl.gz"
    rows.pack(measured, zipped)
    assert [c.best for c in fewshot_own.own(zipped)] == [c.best for c in cases]


def test_figures_of_a_measurement(measured: Path) -> None:
    found = fewshot_own.Own.read(measured)
    one = found.told["small"].rows[-1]
    figures, cores = truth("small", one.params), float(min(2, one.params["workers"]))
    cost = Prices.load().per_hour(cores=cores, memory_bytes=figures["rss_bytes"])
    assert one.metrics["throughput_per_cost"] == pytest.approx(3600.0 * figures["throughput_rps"] / cost)
    assert one.metrics["trial_s"] == pytest.approx(0.5)  # 0.3 of runs, and what lies between two lines beside them
    failed = next(row for row in found.told["large"].rows if row.failure)
    assert failed.metrics == {"trial_s": pytest.approx(0.5)}


@pytest.mark.medium
def test_rows_land_once_and_survive_a_kill(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["fewshot.py", "--list", "own", "--rows", str(measured), "--folder", str(tmp_path), "--seeds", "2"]
    monkeypatch.setattr(sys, "argv", [*argv, "--methods", "static", "prior_gp", "random", "gp_bo"])
    fewshot.main()
    path = tmp_path / "fewshot" / "own.jsonl"
    before = fewshot.load(path)
    assert len(before) == 18 * (1 + 3 * 2)
    assert all(row["to95"] is not None and row["t"][-1][1] > 0.949 for row in before.values())
    path.write_text(path.read_text()[:-30])
    fewshot.main()
    timeless = [
        {k: {n: v for n, v in r.items() if n != "ms"} for k, r in x.items()} for x in (before, fewshot.load(path))
    ]
    assert timeless[0] == timeless[1]
    landed = json.loads((tmp_path / "fewshot_own.json").read_text())["rows"]
    assert {r["method"] for r in landed if r["row"] == "method"} == {"static", "prior_gp", "random", "gp_bo"}
    assert "prior_gp" in (tmp_path / "fewshot_own.svg").read_text()
    assert "static suffices" in " ".join(make_results.fewshot_own(landed))  # three models are few


@pytest.mark.medium
def test_live_counts_measured_and_computed_seconds(
    measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["fewshot_live.py", "--rows", str(measured), "--folder", str(tmp_path), "--seeds", "3"]
    monkeypatch.setattr(sys, "argv", argv)
    fewshot_live.main()
    found = fewshot.load(tmp_path / "fewshot_live.jsonl")
    assert len(found) == 18 * 5 * 3
    assert all(row["measured_s"] == pytest.approx(0.5 * row["n"]) and row["cpu_s"] > 0.0 for row in found.values())
    landed = json.loads((tmp_path / "fewshot_live.json").read_text())["rows"]
    assert [row["model"] for row in landed] == ["middle", "small", "large", "all"]
    assert landed[-1]["cases"] == 18 and landed[-1]["seeds"] == 3
    assert "Learning from the other models" in " ".join(make_results.fewshot_live(landed))


def row(model: str, label: str, method: str, seed: int, to: int) -> dict[str, Any]:
    return {
        "case": f"{model}|x|{label}", "group": model, "method": method, "seed": seed, "to90": to, "to95": to, "n": 20,
        "t": [[to, 1.0]], "size": 100, "ms": 1.0,
    }  # fmt: skip


def test_hard_cases_are_compared_over_models() -> None:
    models = [f"m{i}" for i in range(6)]
    made = [row(m, label, "static", 0, to) for m in models for label, to in (("easy", 1), ("hard", 8))]
    for seed in range(2):
        for m in models:
            for label, ours, theirs in (("easy", 5, 1), ("hard", 2, 8)):
                made += [row(m, label, "prior_gp", seed, ours), row(m, label, "gp_bo", seed, theirs)]
    made.append(row("m0", "easy", "tpe", 0, 3))  # does not have all cases
    found = fewshot_figures.table(made)
    assert [r["method"] for r in found if r["row"] == "method"] == ["static", "prior_gp", "gp_bo"]
    hard = next(r for r in found if r["row"] == "hard" and r["share"] == 95)
    assert (hard["cases"], hard["of"], hard["models"], hard["static_suffices"]) == (6, 12, 6, False)
    assert hard["against"]["gp_bo"]["ratio"] == pytest.approx(4.0)
    assert hard["against"]["gp_bo"]["p"] == pytest.approx(0.5**6)
    ours = next(r for r in found if r["row"] == "method" and r["method"] == "prior_gp")
    assert ours["to95"]["median"] == 3.5 and ours["to95"]["geometric"] == pytest.approx(math.sqrt(10.0))
    assert ours["regret_at_percent"]["5"][0] == 0.0 and ours["regret_at_percent"]["1"][0] == 1.0
    bars = {what: (figure, holds) for what, figure, _, holds in next(r for r in found if r["row"] == "bars")["bars"]}
    assert bars["median samples to 90 %"] == (3.5, False) and bars["median samples to 95 %"] == (3.5, True)
    assert bars["gp_bo: times the samples to 95 %, hard cases"][1]
    assert next(r for r in found if r["row"] == "static")["within_2_percent"] == 0.5
    few = fewshot_figures.table([r for r in made if r["group"] in models[:4]])
    assert next(r for r in few if r["row"] == "hard")["static_suffices"]
    assert [holds for *_, holds in next(r for r in few if r["row"] == "bars")["bars"]][3:] == [None, None]


def test_a_seed_that_some_cases_lack_does_not_count() -> None:
    made = [row(m, "hard", "random", s, 4) for m in ("a", "b") for s in (0, 1)][:-1]
    assert {r["seed"] for r in fewshot_figures.balanced(made)["random"]} == {0}
    assert np.isfinite(fewshot_figures.by_model(made, 90, {"a|x|hard"})["a"])
