"""TPE: its split by hand, its strength as statistics over seeds."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from fettle.algorithms import tpe as module
from fettle.algorithms.random import Random
from fettle.algorithms.ranking import Ranking
from fettle.algorithms.tpe import GAMMAS, TPE, TreeParzen
from fettle.core.errors import InvalidInput
from fettle.core.space import Categorical, Choice, Float, Params, Space
from fettle.core.trial import Constraint, Objective, State, Trial, outcome

LOSS = (Objective("loss"),)
BOX = Space({f"x{i}": Float(0, 1) for i in range(5)})
OP = Choice(conv=Space(k=Categorical([1, 3, 5]), w=Float(0, 1)), pool=Space(s=Float(0, 1)), skip=Space())
TREE = Space(lr=Float(1e-4, 1, log=True), a=OP, b=OP)


def tell(algorithm, number: int, params: Params, loss: float, state: State = State.COMPLETE) -> None:
    trial = Trial(number, params, state, metrics={"loss": loss}, failure="oom" if state is State.FAILED else "")
    algorithm.tell(trial, outcome(trial, LOSS, ()))


def best(settings, space: Space, f: Callable[[Params], float], n: int, seed: int) -> float:
    """The smallest of n losses; NaN counts as a failed trial."""
    algorithm = settings.build(space, LOSS, (), seed, n)
    losses = []
    for i in range(n):
        (proposal,) = algorithm.ask(1, i, [], np.random.default_rng([seed, i]))
        losses.append(f(proposal.params))
        tell(algorithm, i, proposal.params, losses[-1], State.FAILED if losses[-1] != losses[-1] else State.COMPLETE)
    return float(np.nanmin(losses))


def beats_random(space: Space, f: Callable[[Params], float], n: int) -> bool:
    ours, theirs = ([best(settings, space, f, n, seed) for seed in range(12)] for settings in (TPE(), Random()))
    return bool(mannwhitneyu(ours, theirs, alternative="less").pvalue < 0.01)


def bowl(params: Params) -> float:
    return sum((float(x) - 0.3) ** 2 for x in params.values())


def in_the_tree(params: Params) -> float:
    """Best with a: skip, b: conv of width 0.7 and k = 3."""
    b = 1.0 if params["b"] != "conv" else (params["b.conv.k"] != 3) * 0.4 + (params["b.conv.w"] - 0.7) ** 2
    return (math.log10(params["lr"]) + 2) ** 2 / 4 + {"conv": 0.6, "pool": 0.3, "skip": 0.0}[params["a"]] + b


def fails_in_the_corner(params: Params) -> float:
    """It falls towards the failures, as figures do towards the end of memory."""
    x, y = params["x0"], params["x1"]
    return math.nan if x + y > 1.3 else (1.25 - x - y) ** 2 + (x - y) ** 2 + 0.3 * (params["x2"] - 0.5) ** 2


@pytest.mark.parametrize(
    ("space", "f", "n"), [(BOX, bowl, 60), (TREE, in_the_tree, 60), (BOX, fails_in_the_corner, 60)]
)
def test_it_beats_random_search(space: Space, f: Callable[[Params], float], n: int) -> None:
    assert beats_random(space, f, n)


def test_it_learns_where_trials_fail() -> None:
    """The loss falls towards the failures beyond x = 0.4: it runs into fewer where it is told of them."""
    space = Space(x=Float(0, 1), y=Float(0, 1))

    def failures(seed: int, *, told: bool) -> int:
        algorithm = TPE().build(space, LOSS, (), seed, None)
        count = 0
        for i in range(50):
            params = algorithm.ask(1, i, [], np.random.default_rng([seed, i]))[0].params
            bad = params["x"] > 0.4
            count += bad and i >= 10
            if told or not bad:
                tell(algorithm, i, params, 1.0 - params["x"], State.FAILED if bad else State.COMPLETE)
        return count

    knowing, deaf = ([failures(seed, told=told) for seed in range(12)] for told in (True, False))
    assert mannwhitneyu(knowing, deaf, alternative="less").pvalue < 0.01


def test_it_leaves_failures_before_anything_is_good() -> None:
    algorithm = TPE(initial=8).build(Space(x=Float(0, 1)), LOSS, (), 0, None)
    for i in range(8):
        tell(algorithm, i, {"x": 0.05 * i}, 0.0, State.FAILED)
    made = [algorithm.ask(1, i, [], np.random.default_rng(i))[0] for i in range(8, 28)]
    assert all(p.params["x"] > 0.5 for p in made) and made[0].note.startswith("no good trial yet")


# -- the split ----------------------------------------------------------------------------------------------


def good(algorithm: TreeParzen) -> list[float]:
    """First coordinates of the good trials, the best first."""
    return np.round(algorithm._halves().good[:, 0], 6).tolist()


def test_laws_of_gamma() -> None:
    at = (1, 10, 40, 100, 1000)
    assert [GAMMAS["constant"](n) for n in at] == [1, 2, 6, 15, 25]
    assert [GAMMAS["sqrt"](n) for n in at] == [1, 1, 2, 3, 8]
    shares = [GAMMAS["decreasing"](n) / n for n in at]
    assert shares == sorted(shares, reverse=True) and shares[-1] < 0.08
    for wrong in ({"gamma": "half"}, {"n_candidates": 0}, {"initial": 0}):
        with pytest.raises(InvalidInput, match="tpe"):
            TPE(**wrong)


def test_the_split_keeps_what_says_too_little_out_of_the_good_side() -> None:
    algorithm = TPE().build(Space(x=Float(0, 1)), LOSS, (), 0, None)
    for i in range(16):
        tell(algorithm, i, {"x": i / 100}, 100.0 - i)
    assert good(algorithm) == [0.15, 0.14, 0.13]
    tell(algorithm, 16, {"x": 0.5}, -1.0, State.FAILED)
    tell(algorithm, 17, {"x": 0.51}, -1.0, State.STOPPED)  # a lower bound
    tell(algorithm, 18, {"x": 0.52}, math.nan)
    tell(algorithm, 19, {"x": 0.53}, -math.inf)
    assert good(algorithm) == [0.15, 0.14, 0.13] and algorithm._halves().bad.sum() == 17
    tell(algorithm, 15, {"x": 0.15}, 500.0)  # later rungs
    tell(algorithm, 14, {"x": 0.14}, 0.0, State.FAILED)
    assert good(algorithm) == [0.13, 0.12, 0.11]
    weights = algorithm._halves().weights
    assert weights.sum() == pytest.approx(3) and weights[0] > weights[1] > weights[2] > 0


def test_infeasible_trials_come_after_feasible_ones_by_their_violation() -> None:
    bounds = (Constraint("p99_s", upper=1.0),)
    algorithm = TPE().build(Space(x=Float(0, 1)), LOSS, bounds, 0, None)
    for i, (loss, p99) in enumerate([(0, 4.0), (0, 2.0), (9, 0.5), (math.nan, 3.0)] + [(1, 9.0)] * 20):
        trial = Trial(i, {"x": i / 100}, State.COMPLETE, metrics={"loss": float(loss), "p99_s": p99})
        algorithm.tell(trial, outcome(trial, LOSS, bounds))
    assert good(algorithm) == [0.02, 0.01, 0.03, 0.0]


def test_several_objectives_are_split_by_fronts_and_crowding() -> None:
    goals = (Objective("u"), Objective("v", "maximize"))
    ranking = Ranking(2)
    figures = [(5, 5), (0, 10), (4, 4.5), (4.2, 4.2), (10, 0), (9, 9), (4.1, 4.3)]  # of these 0 and 5 are dominated
    for i, (u, v) in enumerate(figures):
        trial = Trial(i, {}, State.COMPLETE, metrics={"u": float(u), "v": -float(v)})
        ranking.put(i, outcome(trial, goals, ()))
    assert ranking.best(2) == [1, 4]  # the ends of the front
    assert ranking.best(4) == [1, 4, 3, 2] and ranking.best(9) == [1, 4, 3, 2, 6, 0, 5]


# -- proposals ----------------------------------------------------------------------------------------------


def primed(space: Space, n: int, f: Callable[[Params], float]) -> TreeParzen:
    algorithm = TPE().build(space, LOSS, (), 0, None)
    for i, params in enumerate(space.sample(n, np.random.default_rng(7))):
        tell(algorithm, i, params, f(params))
    return algorithm


def test_pending_points_spread_a_batch() -> None:
    algorithm = primed(BOX, 40, bowl)

    def spread(points: list[Params]) -> float:
        X = BOX.encode(points)
        return float(np.median(np.linalg.norm(X[:, None] - X, axis=2)[np.triu_indices(len(X), 1)]))

    together, apart = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        together.append(spread([p.params for p in algorithm.ask(6, 40, [], rng)]))
        apart.append(spread([algorithm.ask(1, 40, [], rng)[0].params for _ in range(6)]))
    assert min(together) > 0 and mannwhitneyu(together, apart, alternative="greater").pvalue < 0.01


def test_pending_points_lower_the_score_around_them() -> None:
    algorithm = primed(BOX, 40, bowl)
    split = algorithm._halves()
    here, far = dict.fromkeys(BOX.names, 0.3), dict.fromkeys(BOX.names, 0.95)
    Z = BOX.encode([here, far])
    alone, beside = algorithm._scores(split, Z, []), algorithm._scores(split, Z, [here])
    assert beside[0] < alone[0] - 0.5 and abs(beside[1] - alone[1]) < 0.2


def test_it_says_what_it_does() -> None:
    algorithm = TPE(initial=3).build(BOX, LOSS, (), 0, None)
    notes = []
    for i in range(5):
        (proposal,) = algorithm.ask(1, i, [], np.random.default_rng(i))
        notes.append(proposal.note)
        tell(algorithm, i, proposal.params, bowl(proposal.params))
    assert notes[2] == "quasi-random: 3 told trials come first"
    assert notes[3].startswith("best of 24 candidates, l/g = ") and notes[3].endswith("; 1 good of 3 trials")


def test_a_batch_is_split_between_startup_and_model() -> None:
    algorithm = TPE(initial=4).build(BOX, LOSS, (), 0, None)
    tell(algorithm, 0, BOX.sample(1, np.random.default_rng(0))[0], 1.0)
    kinds = [p.note.split()[0] for p in algorithm.ask(5, 1, [], np.random.default_rng(0))]
    assert kinds == ["quasi-random:"] * 3 + ["best"] * 2


def test_many_trials_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KERNELS", 20)
    algorithm = primed(BOX, 130, bowl)
    split = algorithm._halves()
    assert split.bad.tolist() == [1.0] * 20 and len(split.C_bad) == 20 and len(split.good) == 20
    (proposal,) = algorithm.ask(1, 130, [], np.random.default_rng(0))
    assert BOX.contains(proposal.params)


def test_narrow_constraints_are_met_and_followed() -> None:
    space = Space(x=Float(0, 1), y=Float(0, 1), where=["x + y <= 1.02", "x + y >= 0.98"])
    algorithm = primed(space, 30, lambda p: p["x"])
    made = [algorithm.ask(1, 30, [], np.random.default_rng(i))[0] for i in range(20)]
    assert all(space.contains(p.params) for p in made)
    assert sum(p.params["x"] < 0.3 for p in made) > 12


def test_listed_params_are_scored_and_left_when_used() -> None:
    listed = [{"x": x / 100, "c": c} for x in range(1, 100) for c in ("u", "v")]
    space = Space(x=Float(0, 1), c=Categorical(["u", "v"]), only=listed)
    order = []
    algorithm = TPE().build(space, LOSS, (), 0, None)
    for i in range(40):
        params = algorithm.ask(1, i, [], np.random.default_rng(i))[0].params
        order.append((params["x"] - 0.4) ** 2 + (params["c"] == "u"))
        tell(algorithm, i, params, order[-1])
    assert sorted(order)[:5] == pytest.approx([0, 1e-4, 1e-4, 4e-4, 4e-4])
