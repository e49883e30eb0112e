"""Boxes from earlier studies: learnt, kept in the study's record, and widened or given up where they prove wrong."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fettle
from fettle import registry
from fettle.algorithms.boxed import Box, Boxed, BoxedSearch
from fettle.core.errors import InvalidInput
from fettle.core.space import Categorical, Choice, Float, Int, Ordinal, Params, Space
from fettle.core.trial import Objective, State, Trial, outcome
from fettle.testing import algorithms as suite

LOSS = (Objective("loss"),)
EARLIER: list[Any] = [
    {"lr": 0.01, "n": 2, "kind": "tree", "kind.tree.depth": 8, "kind.tree.opt": "adam", "size": "32", "flag": 1,
     "a": 1, "x": 0.3, "c": "u", **{f"x{i}": 0.4 for i in range(25)}},
    [{"params": {"lr": 0.03, "n": 3, "kind": "flat", "size": "16", "flag": None, "a": 2, "x": 0.4}, "loss": 0.5},
     {"params": {"lr": 1.0, "n": 8}, "loss": 0.9}, {"params": {}, "loss": None}],
    {"kind": "r", "b": "x", "foreign": 3},
]  # fmt: skip
QUADRATIC = Space({**{f"x{i}": Float(0, 1) for i in range(5)}, "c": Categorical(["p", "q", "r", "s"])})


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("inner", ["random", "tpe", "auto"])
def test_conformance(check: suite.Check, inner: str) -> None:
    check(Boxed(inner, EARLIER))


def quadratic(params: Params, optimum: np.ndarray) -> float:
    x = np.array([params[f"x{i}"] for i in range(5)])
    return float(((x - optimum) ** 2).sum()) + (0.0 if params["c"] == "q" else 0.3)


def curve(settings: Any, optimum: np.ndarray, seed: int, n: int) -> np.ndarray:
    """The lowest loss after 1, ..., n trials."""
    algorithm = registry.settings("algorithms", settings).build(QUADRATIC, LOSS, (), seed, None)
    losses = []
    for number in range(n):
        params = algorithm.ask(1, number, [], np.random.default_rng([seed, number]))[0].params
        losses.append(quadratic(params, optimum))
        told(algorithm, number, params, losses[-1])
    return np.minimum.accumulate(losses)


def told(algorithm: Any, number: int, params: Params, loss: float) -> None:
    trial = Trial(number, params, State.COMPLETE, metrics={"loss": loss})
    algorithm.tell(trial, outcome(trial, LOSS, ()))


def family(seed: int, centre: float, word: str) -> tuple[list[Any], np.ndarray]:
    """The best params of four earlier studies about `centre`, and the optimum of one more about 0.7."""
    rng = np.random.default_rng(seed)
    earlier = [{**{f"x{i}": float(x) for i, x in enumerate(row)}, "c": word}
               for row in np.clip(rng.normal(centre, 0.05, (4, 5)), 0, 1)]  # fmt: skip
    return earlier, rng.normal(0.7, 0.05, 5)


@pytest.mark.medium
@pytest.mark.parametrize("inner", ["tpe", "auto"])
def test_a_target_on_shifted_quadratics_is_reached_sooner(inner: str) -> None:
    sooner = 0
    for seed in range(12):
        earlier, optimum = family(seed, 0.7, "q")
        plain, boxed = curve(inner, optimum, seed, 60), curve(Boxed(inner, earlier), optimum, seed, 60)
        sooner += (boxed > 0.02).sum() < (plain > 0.02).sum()  # trials until the target is reached
    assert sooner >= 11  # by a coin: p = 0.003


@pytest.mark.medium
@pytest.mark.parametrize("inner", ["tpe", "auto"])
def test_misleading_studies_cost_few_trials(inner: str) -> None:
    """Twelve trials more make up for a box that holds nothing good in any of six parameters."""
    wins = 0
    for seed in range(20):
        earlier, optimum = family(seed, 0.15, "p")
        wins += curve(Boxed(inner, earlier), optimum, seed, 62)[-1] <= curve(inner, optimum, seed, 50)[-1]
    assert wins >= 5  # fewer than five of twenty would be worse by more than chance: p = 0.006


def test_the_smallest_box_with_a_margin() -> None:
    space = Space(lr=Float(1e-4, 1, log=True), n=Int(1, 10), o=Ordinal([1, 2, 4, 8]), c=Categorical(["a", "b", "c"]),
                  k=Choice(u=Space(x=Float(0, 1)), v=Space(y=Float(0, 1)), w=Space()))  # fmt: skip
    good = [{"lr": 0.01, "n": 3, "o": 2, "c": "a", "k": "u", "k.u.x": 0.5}, {"lr": 0.1, "n": 5, "c": "c", "k": "w"}]
    box = Box.of(space, good, 0.0)
    part = box.part()
    assert part is not None
    lr = part.domains["lr"]
    assert isinstance(lr, Float)
    assert (lr.low, lr.high, lr.log) == (pytest.approx(0.01), pytest.approx(0.1), True)
    assert part.domains["n"] == Int(3, 5)
    assert part.domains["o"] == Ordinal([2])
    assert part.domains["c"] == Categorical(["a", "c"])
    assert [c.name for c in part.columns][4:] == ["k", "k.u.x"]
    assert Box.of(space, good, 0.1).part() != part
    assert Box.of(space, [], 0.1).whole
    assert Box.of(space, [{"lr": 7.0, "foreign": 1}], 0.1).whole, "what the space does not have is left out"


def test_it_widens_at_a_face_and_to_hold_the_best() -> None:
    space = Space(x=Float(0, 1), c=Categorical(["a", "b"]))
    box = Box.of(space, [{"x": 0.5, "c": "a"}], 0.1)
    assert (box.low[0], box.high[0]) == (0.4, 0.6)
    inside = np.array([[0.5, 0.25], [0.6, 0.25], [0.4, 0.25]])
    assert not box.widened(inside)
    assert box.widened(np.array([[0.59, 0.25], [0.6, 0.25], [0.585, 0.25]]))
    assert (box.low[0], box.high[0]) == (0.4, pytest.approx(0.7))
    assert box.widened(np.array([[0.35, 0.75]]))
    assert (box.low[0], box.high[0]) == (pytest.approx(0.25), pytest.approx(0.7))
    assert box.words[1] == {0, 1}
    assert box.widened(np.array([[0.99, 0.25]])), "far outside"
    assert box.whole


def test_a_fixed_share_are_probes() -> None:
    earlier = [{f"x{i}": 0.5 for i in range(5)}]
    algorithm = Boxed("random", earlier).build(QUADRATIC, LOSS, (), 0, None)
    assert isinstance(algorithm, BoxedSearch)
    notes = []
    for number in range(100):
        (made,) = algorithm.ask(1, number, [], np.random.default_rng([0, number]))
        notes.append(made.note)
        inside = all(0.4 <= made.params[f"x{i}"] <= 0.6 for i in range(5))
        assert inside == made.note.startswith("in the box") or made.note.startswith("a probe of the whole")
        told(algorithm, number, made.params, 1.0 - inside)
    assert sum(note.startswith("in the box") for note in notes) == 85
    assert sum(note.startswith("a probe outside") for note in notes) == 8


def test_known_constraints_listed_params_and_priors_hold_in_the_box() -> None:
    space = Space({"x": Float(0, 1), "k": Choice(a=Space(y=Float(0, 1)), b=Space())},
                  where=["x <= 0.5 or k == 'b'", "k.a.y <= x"],
                  prior={"x": {"at": 0.9}, "k": {"a": 2, "b": 1}})  # fmt: skip
    part = Box.of(space, [{"x": 0.4, "k": "b"}], 0.1).part()
    assert part is not None
    assert (part.where, part.prior) == (("x <= 0.5 or k == 'b'",), {"k": {"b": 1}})
    assert Box.of(space, [{"x": 0.8, "k": "a"}], 0.1).part() is None, "nothing of it is allowed"
    table = Space(x=Float(0, 1), only=[{"x": i / 10} for i in range(11)])
    part = Box.of(table, [{"x": 0.5}], 0.11).part()
    assert part is not None
    assert part.only == ({"x": 0.4}, {"x": 0.5}, {"x": 0.6})


def test_it_is_kept_in_the_studys_record(tmp_path: Path) -> None:
    settings = fettle.Boxed(fettle.TPE(initial=4), EARLIER[1:2], margin=0.2)
    space = Space(lr=Float(1e-4, 1, log=True))
    study = fettle.Study(space, objectives=["loss"], algorithm=settings, storage=tmp_path / "my.db", name="s")
    for _ in range(6):
        trial = study.ask()
        study.tell(trial, {"loss": abs(math.log10(trial.params["lr"]) + 1.5)})
    again = fettle.Study.open("s", tmp_path / "my.db")
    record = again.log.experiment["algorithm"]
    assert (record["name"], record["algorithm"]["initial"], record["margin"]) == ("boxed", 4, 0.2)
    assert record["earlier"] == [EARLIER[1][0]["params"]], "of an earlier study only what counts"
    assert registry.settings("algorithms", record) == settings
    assert again.ask().note.startswith(("in the box", "a probe"))
    again.close()
    study.close()


@pytest.mark.parametrize(
    "wrong",
    [{"margin": -0.1}, {"margin": math.nan}, {"probes": 0.0}, {"probes": 1.0}, {"earlier": {"x": 1}}, {"earlier": [3]},
     {"earlier": [[{"x": 1}]]}, {"algorithm": "nothing"}],
)  # fmt: skip
def test_bad_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Boxed(**wrong)
