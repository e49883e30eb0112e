"""Replays of tasks: where earlier ones help, where they do not, where one configuration does for all, and limits."""

import math

import numpy as np
import pytest

import fettle
from fettle.core.errors import InvalidInput
from fettle.replay import evaluate
from fettle.replay.cases import Case, others
from fettle.replay.runs import Run, built, replay, static
from fettle.surrogates.meta import Task

SPACE = fettle.Space(batch=fettle.Int(1, 64, log=True), threads=fettle.Int(1, 8), mode=fettle.Categorical(["a", "b"]))
GRID = [{"batch": b, "threads": t, "mode": m} for b in (1, 2, 4, 8, 16, 32, 64) for t in (1, 2, 4, 8) for m in "ab"]
RATE = fettle.Objective("rate", "maximize")


def like(n: int, *, rows: int = len(GRID)) -> list[Task]:
    """A narrow peak in one of three places off the middle, at a level of its own; the largest params fail."""
    made = []
    for i in range(n):
        at = 5.0 + (i % 3 - 1), 0.0
        figures: list[tuple[object, ...]] = []
        for p in GRID[:rows]:
            off = (math.log2(float(p["batch"])) - at[0]) ** 2 + 1.5 * (math.log2(float(p["threads"])) - at[1]) ** 2
            rate = 10.0 ** (i % 4) * (1.0 + 4.0 * math.exp(-off)) * (1.0 if p["mode"] == "a" else 0.6)
            figures.append((p, "oom") if p["batch"] == 64 and p["threads"] == 8 else (p, {"rate": rate}))
        made.append(Task(f"t{i}", figures, space=SPACE, features={"flops": 10.0 + i}))
    return made


def unlike(n: int) -> list[Task]:
    """Noise: no task tells anything of another."""
    made = []
    for i in range(n):
        rates = np.exp(np.random.default_rng(i).standard_normal(len(GRID))).tolist()
        made.append(Task(f"t{i}", [(p, {"rate": rate}) for p, rate in zip(GRID, rates, strict=True)], space=SPACE))
    return made


@pytest.mark.medium
def test_learning_helps_where_tasks_are_alike() -> None:
    found = evaluate(like(5), RATE, methods=("prior_gp", "gp_bo"), seeds=1)
    means = {mean.method: mean for mean in found.means()}
    assert means["prior_gp"].to95 < 0.6 * means["gp_bo"].to95
    assert means["prior_gp"].regret < means["gp_bo"].regret
    (ratio,) = found.ratios()
    assert ratio.high < 1.0 and ratio.n == 5
    assert found.verdict()[0].startswith("earlier tasks help here")
    assert found.complete and not found.left_out
    assert len(found.by_task()) == 15 and {mean.task for mean in found.by_task()} == {f"t{i}" for i in range(5)}


@pytest.mark.medium
def test_nothing_is_claimed_where_they_are_not() -> None:
    found = evaluate(unlike(5), RATE, methods=("prior_gp", "gp_bo"), seeds=1)
    assert not found.hardly_pays
    assert not any(line.startswith("earlier tasks help") for line in found.verdict())


def test_one_configuration_may_do_for_all() -> None:
    rows = like(1)[0].rows
    tasks = [Task(f"t{i}", rows, space=SPACE, features={"flops": 10.0 + i}) for i in range(4)]
    found = evaluate(tasks, RATE, methods=(), seeds=1)
    assert found.hardly_pays
    assert found.verdict() == [
        "tuning hardly pays here: the best static configuration is within 2 % of the best on all tasks"
    ]
    assert not evaluate(unlike(4), RATE, methods=(), seeds=1).hardly_pays
    assert "nothing to compare" in evaluate(unlike(4), RATE, methods=(), seeds=1).verdict()[0]


def test_a_replay_ends_with_the_rows() -> None:
    (task,) = like(1, rows=18)
    case = Case.of(task, RATE)
    run = replay(case, built(case, "random", 3), method="random", seed=3)
    assert run == replay(case, built(case, "random", 3), method="random", seed=3)
    assert 1 <= run.to90 <= run.to95 <= 18 and 0.0 <= run.regret <= 1.0


def test_repeats_are_averaged_and_strangers_left_out() -> None:
    rows = [(p, {"rate": 2.0}) for p in GRID[:20]]
    rows += [(GRID[0], {"rate": 4.0}), (GRID[1], {"other": 4.0}), ({"batch": 999}, {"rate": 9e9})]
    case = Case.of(Task("m", [*rows, (GRID[2], "oom"), (GRID[30], "oom")], space=SPACE), RATE)
    assert len(case.rows) == 21 and case.best == 3.0
    assert sum(bool(row.failure) for row in case.rows.values()) == 1


def test_shares() -> None:
    rows = [(p, {"rate": 1.0 + i, "late": float(i)}) for i, p in enumerate(GRID[:20])]
    bound = {"constraints": [{"metric": "late", "upper": 9.0, "lower": None}]}
    case = Case.of(Task("m", rows, space=SPACE, context=bound), RATE)
    shares = [case.share(row) for row in case.rows.values()]
    assert shares == pytest.approx([*((1.0 + i) / 10.0 for i in range(10)), *[0.0] * 10])
    cost = Case.of(Task("m", rows, space=SPACE), fettle.Objective("rate", "minimize"))
    assert [cost.share(r) for r in cost.rows.values()][:4] == pytest.approx([1.0, 0.5, 1 / 3, 0.25])
    ranged = Case.of(Task("m", rows, space=SPACE), fettle.Objective("late", "minimize"))
    assert [ranged.share(r) for r in ranged.rows.values()] == pytest.approx([1.0 - i / 19 for i in range(20)])


def test_static_goes_by_the_others() -> None:
    cases = [Case.of(task, RATE) for task in unlike(3)]
    run = static(cases[0], cases[1:])
    assert isinstance(run, Run) and run.method == "static"
    alone = Case.of(Task("m", [({**p, "batch": 3 * p["batch"]}, {"rate": 1.0}) for p in GRID[:16]], space=SPACE), RATE)
    assert static(alone, cases) is None


def test_the_same_model_is_left_out_together() -> None:
    tasks = like(4)
    twin = Task("twin", tasks[0].rows, space=SPACE, features=tasks[0].features)
    tuned = [Task(n, tasks[0].rows, space=SPACE, context={"models": {"fp32": h}}) for n, h in (("x", "1"), ("y", "1"))]
    stranger = Task("z", [({"other": 1}, {"rate": 1.0})])
    given = [*tasks, twin, *tuned, stranger]
    assert [t.name for t in others(Case.of(tasks[0], RATE), given)] == ["t1", "t2", "t3", "x", "y"]
    assert [t.name for t in others(Case.of(tuned[0], RATE), given)] == ["t0", "t1", "t2", "t3", "twin"]


def test_what_is_left_out_is_said() -> None:
    nowhere = Task("nowhere", like(1)[0].rows)
    slow = {"constraints": [{"metric": "rate", "lower": 1e9, "upper": None}]}
    hopeless = Task("hopeless", like(1)[0].rows, space=SPACE, context=slow)
    odd = Task("odd", hopeless.rows, space=SPACE, context={"constraints": [{"metric": "rate", "upper": "x"}]})
    found = evaluate(
        [odd, *like(3), Task("few", like(1)[0].rows[:9], space=SPACE), nowhere, hopeless], RATE, methods=()
    )
    assert found.left_out["few"] == "9 rows, expected at least 16"
    assert found.left_out["odd"].startswith("its constraints cannot be read")
    assert found.left_out["nowhere"] == "its space is not known"
    assert found.left_out["hopeless"] == "nothing holds its constraints"
    assert found.tasks == ["t0", "t1", "t2"]


def test_wrong_input_is_named() -> None:
    with pytest.raises(InvalidInput, match="unknown method 'magic'"):
        evaluate(like(3), RATE, methods=["magic"])
    with pytest.raises(InvalidInput, match="t0: 1 other tasks share"):
        evaluate(like(2), RATE)
    with pytest.raises(InvalidInput, match="there is no task"):
        evaluate([], RATE)
    with pytest.raises(InvalidInput, match="speed was not measured"):
        evaluate(like(3), fettle.Objective("speed"))
    with pytest.raises(InvalidInput, match="in time"):
        evaluate(like(3), RATE, seconds=-1.0)


def test_time_ends_a_long_evaluation() -> None:
    """What was begun is finished, and the answer says that it is not all."""
    said: list[str] = []
    found = evaluate(like(3), RATE, methods=("random",), seeds=1000, seconds=0.3, watch=said.append)
    assert not found.complete and found.runs
    assert said[0] == "t0, seed 0"
