"""What an evaluation is worth: boxes of what is not dominated, expected hypervolume, slopes, chances, cost."""

import numpy as np
import pytest

from fettle.algorithms.belief import Belief, Fits, Part, believe, log_cost, schedule
from fettle.algorithms.history import History
from fettle.algorithms.worth import VolumeWorth, Worth, boxes, combined
from fettle.core.pareto import front, hypervolume
from fettle.core.space import Categorical, Choice, Float, Params, Space
from fettle.core.trial import Constraint, Objective, State, Trial, outcome
from fettle.surrogates.acquisition import by_name
from fettle.surrogates.gp import GP

BOX = Space(x=Float(0, 1), y=Float(0, 1))
TREE = Space(lr=Float(0, 1), w=Categorical(["p", "q", "r"]), kind=Choice(a=Space(s=Float(0, 1)), b=Space()))


def believed(
    space: Space,
    goals: int,
    n: int,
    *,
    metrics=None,
    constraints: tuple[Constraint, ...] = (),
    failed=lambda params: False,
) -> tuple[Belief, History]:
    """A belief of n random trials."""
    objectives = tuple(Objective(f"u{k}") for k in range(goals))
    history = History(space, objectives, constraints, "cost")
    for i, params in enumerate(space.sample(n, np.random.default_rng(0))):
        u = np.nan_to_num(space.encode([params])[0], nan=0.2)
        figures = {f"u{k}": float(((u - 0.3 - 0.4 * k) ** 2).sum()) for k in range(goals)}
        figures |= {"cost": 1.0 + 9.0 * float(u[0]), "size": float(u[0])} | (metrics(params) if metrics else {})
        state = State.FAILED if failed(params) else State.COMPLETE
        trial = Trial(i, params, state, metrics=figures, failure="oom" if state is State.FAILED else "")
        history.put(trial, outcome(trial, objectives, constraints))
    part = Part("all", np.arange(n), np.arange(len(space)))
    return believe(Fits(GP(), space.columns), part, history.arrays), history


# -- boxes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_boxes_fill_what_is_not_dominated(k: int, seed: int) -> None:
    """Cut off below, their volumes and the hypervolume make up the whole cube."""
    rng = np.random.default_rng([k, seed])
    points = rng.random((12, k)) * 1.2  # some lie beyond the reference
    if seed == 4:
        points = np.round(points, 1)  # ties
    corners = boxes(points[front(points)], np.ones(k))
    cut = np.maximum(corners, 0.0)
    volumes = np.prod(cut[:, 1] - cut[:, 0], axis=1)
    assert np.all(corners[:, 0] < corners[:, 1])
    assert volumes.sum() == pytest.approx(1.0 - hypervolume(points, np.ones(k)))
    for y in rng.random((200, k)):
        inside = np.all((corners[:, 0] <= y) & (y < corners[:, 1]), axis=1).sum()
        assert inside == (not np.all(points <= y, axis=1).any())


def test_without_points_one_box_lies_below_the_reference() -> None:
    for k in (1, 2, 3):
        assert boxes(np.empty((0, k)), np.ones(k)).tolist() == [[[-np.inf] * k, [1.0] * k]]


# -- the expected improvement of the hypervolume ------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3])
def test_expected_hypervolume_improvement_agrees_with_monte_carlo(k: int) -> None:
    belief, _ = believed(BOX, k, 7)
    worth = VolumeWorth.of(belief)
    every = np.column_stack([loss.values for loss in belief.losses])
    points = every[front(every)]
    reference = worth.boxes[:, 1].max(axis=0)
    U = np.array([[0.5, 0.5], [0.9, 0.1], [0.31, 0.36]])
    for u, value in zip(U, np.exp(worth(U)), strict=True):
        moments = [loss.process.predict(u[None]) for loss in belief.losses]
        normal = np.random.default_rng(1).standard_normal((2000, k))
        drawn = np.array([m[0] for m, _ in moments]) + normal * np.array([s[0] for _, s in moments])
        have = hypervolume(points, reference)
        gains = np.array([hypervolume(np.r_[points, y[None]], reference) - have for y in drawn])
        assert abs(value - gains.mean()) < 4 * gains.std() / np.sqrt(len(gains)) + 1e-6


def test_the_front_of_many_trials_is_the_true_one() -> None:
    """Of more than 500 trials a process knows only some, and not the same ones for each objective."""
    belief, history = believed(BOX, 2, 620)
    worth = VolumeWorth.of(belief)
    every = np.column_stack([loss.outputs(history.arrays.losses[:, k]) for k, loss in enumerate(belief.losses)])
    reference = worth.boxes[:, 1].max(axis=0)
    low = every.min(axis=0)
    cut = np.clip(worth.boxes, low, reference)
    free = np.prod(cut[:, 1] - cut[:, 0], axis=1).sum()
    assert free == pytest.approx(np.prod(reference - low) - hypervolume(every, reference))


def test_infeasible_trials_are_no_part_of_the_front() -> None:
    bound = (Constraint("size", upper=0.5),)
    belief, history = believed(BOX, 2, 30, constraints=bound)
    every = np.column_stack([loss.values for loss in belief.losses])
    feasible = history.arrays.feasible
    assert 5 < feasible.sum() < 25
    corners = {tuple(c) for c in VolumeWorth.of(belief).boxes[:, 1]}
    for y in every[~feasible]:
        assert not any(np.isclose(np.array(list(corners)), y).all(axis=1))


# -- one objective ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["log_ei", "ei", "pi", "ucb"])
@pytest.mark.parametrize("space", [BOX, TREE], ids=["box", "tree"])
def test_slopes_agree_with_differences(name: str, space: Space) -> None:
    """With a constraint and failures in it."""
    belief, _ = believed(
        space, 1, 25, constraints=(Constraint("size", upper=0.7),), failed=lambda p: p[space.names[0]] < 0.15
    )
    assert len(belief.chances) == 2
    value = by_name(name, 2.0)
    worth = Worth(belief, lambda mean, std: value(mean, std, belief.losses[0].best))
    numbers = np.array([c.kind == "float" for c in space.columns])
    step, close = 1e-6, 0
    for u in space.encode(space.sample(12, np.random.default_rng(1))):
        total, gradient = worth.slopes(u)
        assert total == pytest.approx(float(worth(u[None])[0]), rel=1e-4, abs=1e-6)
        if total < -100:  # far beyond a bound differences are lost in rounding
            continue
        close += 1
        for j in np.flatnonzero(numbers & ~np.isnan(u)):
            U = np.array([u, u])
            U[:, j] += [step, -step]
            up, down = worth(U)
            assert gradient[j] == pytest.approx((up - down) / (2 * step), rel=2e-2, abs=1e-2)
    assert close >= 4


def test_what_fails_or_breaks_a_bound_is_worth_less() -> None:
    belief, _ = believed(BOX, 1, 40, constraints=(Constraint("size", upper=0.6),), failed=lambda p: p["y"] > 0.7)
    good, broken, failing = belief.log_chance(np.array([[0.3, 0.3], [0.9, 0.3], [0.3, 0.95]]))
    assert good > np.log(0.8) and broken < np.log(0.2) and failing < np.log(0.3)


def test_extras_add_up() -> None:
    U = np.zeros((2, 2))
    assert combined([]) is None
    both = combined([lambda U: np.array([1.0, 2.0]), lambda U: np.array([10.0, 20.0])])
    assert both is not None and both(U).tolist() == [11.0, 22.0]
    belief, _ = believed(BOX, 1, 8)
    assert np.allclose(Worth(belief, None, both)(U) - Worth(belief, None)(U), [11.0, 22.0])


def test_cost_is_learned_where_it_is_known() -> None:
    belief, history = believed(BOX, 1, 30)
    cost = log_cost(Fits(GP(), BOX.columns), belief.part, history.arrays)
    assert cost is not None
    cheap, dear = cost.predict(np.array([[0.05, 0.5], [0.95, 0.5]]))[0]
    assert cheap == pytest.approx(np.log(1.45), abs=0.2) and dear == pytest.approx(np.log(9.55), abs=0.2)
    assert log_cost(Fits(GP(), BOX.columns), Part("few", np.arange(1), np.arange(2)), history.arrays) is None


# -- beliefs ------------------------------------------------------------------------------------------------------


def test_refits_get_rarer_and_never_use_what_is_not_there() -> None:
    counts = [schedule(n) for n in range(3000)]
    assert all(0 <= count <= n for n, count in enumerate(counts)) and counts == sorted(counts)
    assert all(n - count <= 0.1 * n + 1 for n, count in enumerate(counts)) and len(set(counts)) < 90


def test_a_part_sees_its_own_columns() -> None:
    _, history = believed(TREE, 1, 40)
    rows = np.flatnonzero(history.arrays.U[:, 2] < 0.5)
    belief = believe(Fits(GP(), TREE.columns), Part("a", rows, np.array([0, 3])), history.arrays)
    assert belief.view(history.arrays.U).shape == (40, 2) and len(belief.losses[0].values) == len(rows)


def test_too_few_losses_leave_chances_alone() -> None:
    belief, _ = believed(BOX, 1, 6, failed=lambda p: True)
    assert belief.losses == () and len(belief.chances) == 1
    assert np.isfinite(Worth(belief, None)(np.random.default_rng(0).random((5, 2)))).all()


def test_a_belief_forgets_what_was_told_before_a_correction() -> None:
    """Hyper-parameters are learned at fixed counts; a trial that is told again starts them anew."""
    fits = Fits(GP(), BOX.columns)
    belief, history = believed(BOX, 1, 12)
    fits.at(history.version)
    believe(fits, belief.part, history.arrays)
    corrected: Params = history.rows[0].params
    trial = Trial(0, corrected, State.COMPLETE, metrics={"u0": 40.0})
    history.put(trial, outcome(trial, history.objectives, ()))
    fits.at(history.version)
    fresh = Fits(GP(), BOX.columns)
    fresh.at(history.version)
    U = np.random.default_rng(0).random((4, 2))
    ours, theirs = (believe(f, belief.part, history.arrays).losses[0].process.predict(U) for f in (fits, fresh))
    assert np.array_equal(ours, theirs)
