"""The search benchmark: rows land once, survive a kill, and the tables decide what they say."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import compare
import search
import search_rows as rows
import search_scores

from fettle.problems.synthetic import make


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    argv = ["search.py", "--folder", str(folder), "--evaluations", "60", "--seeds", "3", *more]
    monkeypatch.setattr(sys, "argv", argv)
    search.main()


def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    wanted = ("--problems", "noisy_branin", "memory", "zdt1", "--methods", "random", "fettle:random")
    run(tmp_path, monkeypatch, *wanted)
    assert "9 runs" in capsys.readouterr().out
    for name in ("random", "fettle_random"):
        path = tmp_path / f"{name}.jsonl"
        before = path.read_text()
        path.write_text(before[:-40])  # cut off in the middle of the last line
        run(tmp_path, monkeypatch, *wanted)
        assert "1 runs" in capsys.readouterr().out
        _, again = rows.load(path)
        first = {rows.key(r): r for r in map(json.loads, before.splitlines()[1:])}
        assert {k: r["t"] for k, r in again.items()} == {k: r["t"] for k, r in first.items()}


def test_rows_of_another_problem_or_code_are_run_again(tmp_path: Path) -> None:
    for code, expected in (("new", False), ("old", True)):
        path = rows.path_of("m", tmp_path)
        row = {"p": "memory", "s": 0, "b": 60, "n": 60, "h": rows.problem_hash("memory", 0), "c": "old"}
        path.write_text('{"method":"m"}\n' + json.dumps(row) + "\n")
        assert rows.File("m", tmp_path, {}, code).has("memory", 0, 60, 60) is expected
    path.write_text('{"method":"m"}\n' + json.dumps({**row, "h": "0"}) + "\n")
    assert not rows.File("m", tmp_path, {}, "old").has("memory", 0, 60, 60)
    assert rows.hash_of(make("two_level", 0)) != rows.hash_of(make("two_level", 1))


def landed(tmp_path: Path, method: str, regrets: np.ndarray, problem: str = "two_level") -> None:
    lines = [json.dumps({"method": method})]
    for seed, regret in enumerate(regrets.tolist()):
        steps = [[1, 1.0], [50, regret]]
        row = {"p": problem, "k": "conditional", "s": seed, "b": 100, "n": 100, "t": steps, "ms": 1.0, "f": 0}
        lines.append(json.dumps(row))
    with rows.path_of(method, tmp_path).open("w") as out:
        out.write("\n".join(lines) + "\n")


def test_losses_are_found_and_ties_are_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ours = np.exp(rng.normal(-3, 1, 20))
    landed(tmp_path, "fettle:auto", ours)
    landed(tmp_path, "better", ours * np.exp(rng.normal(-0.7, 0.5, 20)))
    landed(tmp_path, "same", rng.permutation(ours))
    landed(tmp_path, "floored", np.full(20, 1e-9))
    methods = {m.name: m for m in map(search_scores.Scores.read, tmp_path.glob("*.jsonl"))}
    others = [methods[name] for name in ("better", "same", "floored")]
    _, lost = compare.duels(methods["fettle:auto"], others, lambda kind: ["two_level"])
    assert {line[1] for line in lost["body"]} == {"better", "floored"}
    assert methods["floored"].at["two_level", 0][60] == search_scores.FLOOR
    assert methods["floored"].at["two_level", 0][30] == 1.0
    (table,) = compare.standings(list(methods.values()), ["two_level"], "x")
    assert table["body"][0][0] == "floored"
    assert "two_level: under 1" in compare.conditional(others, ["two_level"])["head"]


def test_holm() -> None:
    assert search_scores.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert search_scores.one_sided(np.ones(5), np.ones(5)) == 1.0
