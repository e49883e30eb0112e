"""Scales of a metric: figures that keep their meaning, and ranks."""

import math
from pathlib import Path

import numpy as np
import pytest

import fettle
from fettle.core.space import Space
from fettle.core.trial import Constraint, Objective, State, Trial, outcome
from fettle.surrogates.meta import MetaModel, Task, train
from fettle.surrogates.meta.scales import LINEAR, LOG, Absolute, Ranks

SPACE = Space(x=fettle.Float(0, 1), y=fettle.Float(0, 1))


@pytest.mark.parametrize("kind", [LOG, LINEAR])
def test_absolute_scales_are_invertible(kind: str) -> None:
    figures = np.array([0.1, 1.0, 7.0])
    scale = Absolute(kind)
    assert scale.backward(scale.forward(figures)) == pytest.approx(figures)


def test_ranks_depend_on_the_order_alone() -> None:
    y = np.random.default_rng(0).normal(size=50)
    a, b = Ranks.of(y).forward(y), Ranks.of(np.exp(5 * y)).forward(np.exp(5 * y))
    assert a == pytest.approx(b)
    assert (np.argsort(a) == np.argsort(y)).all()
    assert a.mean() == pytest.approx(0, abs=1e-9) and 0.9 < a.std() < 1.0
    assert Ranks.of(y).backward(a) == pytest.approx(y)


def test_ranks_of_few_equal_and_unknown_figures() -> None:
    assert np.isnan(Ranks.of(np.array([])).forward(np.array([1.0]))).all()
    one = Ranks.of(np.array([3.0, np.nan]))
    assert one.forward(np.array([3.0, 4.0])).tolist()[0] == 0.0 and math.isnan(one.forward(np.array([4.0]))[0])
    same = Ranks.of(np.array([1.0, 1.0, 2.0, 2.0])).forward(np.array([1.0, 2.0]))
    assert same[0] == pytest.approx(-same[1])
    beyond = Ranks.of(np.array([1.0, 2.0, 4.0])).forward(np.array([0.0, 1.0, 4.0, 5.0]))
    assert (np.diff(beyond) > 0).all()


def tasks(shape: str, n: int = 6) -> list[Task]:
    """The same order of options in all tasks; figures that have no common shape, or one."""
    rng, made = np.random.default_rng(1), []
    for t in range(n):
        power = float(rng.uniform(0.3, 12.0)) if shape == "none" else 1.0
        rows = []
        for params in SPACE.sample(60, rng):
            off = (params["x"] - 0.3) ** 2 + (params["y"] - 0.6) ** 2 + 0.02 * float(rng.random())
            rows.append((params, {"loss": -math.exp(-3 * off * power) + 100.0 * (off > 0.5) * power}))
        made.append(Task(str(t), rows))
    return made


def test_ranks_are_taken_where_they_foretell_left_out_tasks_better() -> None:
    assert train(tasks("none"), SPACE).ranked("loss")
    logs = [Task(t.name, [(r.params, {"loss": 2.0 + r.params["x"]}) for r in t.rows]) for t in tasks("one")]
    assert not train(logs, SPACE).ranked("loss")


def asked(model: MetaModel, n: int) -> list[float]:
    """Losses of n proposals, told as they come."""
    goal = (Objective("loss"),)
    search = fettle.FewShot(model).build(SPACE, goal, (), 0, None)
    found = []
    for number in range(n):
        (proposal,) = search.ask(1, number, [], np.random.default_rng(number))
        params = proposal.params
        loss = (params["x"] - 0.3) ** 2 + (params["y"] - 0.6) ** 2
        for interval in (proposal.predicted or {}).values():
            assert interval[1] <= interval[0] <= interval[2]
        trial = Trial(number, params, State.COMPLETE, metrics={"loss": loss})
        search.tell(trial, outcome(trial, goal, ()))
        found.append(loss)
    return found


def test_a_search_by_ranks_finds_what_the_tasks_have_in_common() -> None:
    model = train(tasks("none"), SPACE)
    assert min(asked(model, 6)) < 0.03


def test_what_is_bound_keeps_its_own_scale() -> None:
    """Only there is anything to say of figures before one was seen."""
    model, goal = train(tasks("none"), SPACE), (Objective("loss"),)
    for bounds, known in ((), set()), ((Constraint("loss", upper=0.5),), {"loss"}):
        search = fettle.FewShot(model).build(SPACE, goal, bounds, 0, None)
        (proposal,) = search.ask(1, 0, [], np.random.default_rng(0))
        assert set(proposal.predicted or {}) == known


def test_a_stored_model_keeps_its_ranks(tmp_path: Path) -> None:
    model = train(tasks("none"), SPACE)
    again = fettle.meta.load(model.save(tmp_path / "m.npz"))
    assert again.ranked("loss")
    assert asked(again, 4) == asked(model, 4)
