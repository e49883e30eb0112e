"""The default algorithm: who proposes, when and why, and that mixing pays."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from fettle import registry
from fettle.algorithms.auto import Auto
from fettle.core.errors import Exhausted
from fettle.core.space import Categorical, Choice, Float, Int, Params, Space
from fettle.core.trial import Objective, State, Trial, outcome
from fettle.problems.synthetic import make
from fettle.testing.search import search

LOSS = (Objective("loss"),)
CUBE = Space({f"x{i}": Float(0, 1) for i in range(3)})


def run(space: Space, f: Callable[[Params, int], float], n: int) -> list[Trial]:
    """n trials in order; a loss that is not finite is a failed trial."""
    auto, trials = Auto().build(space, LOSS, (), 0, n), []
    for i in range(n):
        (proposal,) = auto.ask(1, i, [], np.random.default_rng([0, i]))
        loss = f(proposal.params, i)
        state = State.COMPLETE if math.isfinite(loss) else State.FAILED
        trial = Trial(i, proposal.params, state, metrics={"loss": loss}, note=proposal.note)
        auto.tell(trial, outcome(trial, LOSS, ()))
        trials.append(trial)
    return trials


def bowl(params: Params, number: int) -> float:
    return sum((float(x) - 0.3) ** 2 for x in params.values())


def noise(params: Params, number: int) -> float:
    return float(np.random.default_rng([7, number]).normal())


def of_region(trials: list[Trial]) -> list[int]:
    return [t.number for t in trials if t.note.startswith("trust region")]


def test_a_smooth_function_of_few_numbers_gives_every_second_trial_to_the_region() -> None:
    trials = run(CUBE, bowl, 24)
    own = of_region(trials)
    assert len(own) >= 6 and all(number >= 8 and number % 2 == 0 for number in own)  # it may look noisy at first
    assert "few numbers and little noise: every 2nd trial" in trials[own[-1]].note
    assert min(t.metrics["loss"] for t in trials) < 1e-4


@pytest.mark.parametrize(
    "space",
    [
        Space({f"x{i}": Float(0, 1) for i in range(9)}),
        Space(x=Float(0, 1), n=Int(1, 9)),
        Space(x=Float(0, 1), c=Categorical(["a", "b"])),
        Space(k=Choice(a=Space(x=Float(0, 1)), b=Space())),
    ],
    ids=["many numbers", "integers", "words", "branches"],
)
def test_elsewhere_there_is_no_region(space: Space) -> None:
    trials = run(space, lambda p, i: sum(v for v in p.values() if isinstance(v, float)), 16)
    assert of_region(trials) == []


def test_noise_that_nothing_explains_is_shared_with_a_search_that_models_less() -> None:
    trials = run(CUBE, noise, 60)
    plain = [t for t in trials if "the model explains" in t.note]
    assert len(plain) > 8 and all(t.number >= 30 and t.number % 2 for t in plain)
    assert len(of_region(trials)) < 20


def test_with_very_many_trials_the_model_has_every_tenth() -> None:
    auto = Auto().build(CUBE, LOSS, (), 0, None)
    for i, params in enumerate(CUBE.sample(1000, np.random.default_rng(0))):
        trial = Trial(i, params, State.COMPLETE, metrics={"loss": bowl(params, i)})
        auto.tell(trial, outcome(trial, LOSS, ()))
    notes = [auto.ask(1, i, [], np.random.default_rng([0, i]))[0].note for i in range(1000, 1011)]
    assert ["the turn of the model" in note for note in notes] == [True, *[False] * 9, True]
    assert all("dear" in note for note in notes[1:10])


def test_a_start_in_which_everything_fails_goes_on_spreading() -> None:
    trials = run(CUBE, lambda params, number: math.nan, 30)
    points = np.array([list(t.params.values()) for t in trials], float)
    gaps = np.abs(points[:, None] - points[None]).max(axis=2)[np.triu_indices(30, 1)]
    assert gaps.min() > 0.02 and points.std(axis=0).min() > 0.2


def test_a_batch_is_spread_and_ends_with_the_space() -> None:
    space = Space(a=Int(1, 3), b=Int(1, 3))
    auto = Auto().build(space, LOSS, (), 0, None)
    proposals = auto.ask(12, 0, [], np.random.default_rng(0))
    assert len({space.key(p.params) for p in proposals}) == len(proposals) == 9
    with pytest.raises(Exhausted):
        auto.ask(1, 9, [p.params for p in proposals], np.random.default_rng(0))


@pytest.mark.medium
@pytest.mark.parametrize("name", ["hartmann6", "mixed_network", "two_level", "memory", "hartmann6_ball"])
def test_it_beats_random_search(name: str) -> None:
    ours = [search("auto", make(name, seed), evaluations=30).answers[30] for seed in range(6)]
    theirs = [search("random", make(name, seed), evaluations=30).answers[30] for seed in range(6)]
    assert mannwhitneyu(ours, theirs, alternative="less").pvalue < 0.01


@pytest.mark.medium
def test_it_beats_random_search_for_two_objectives() -> None:
    ours = [search("auto", make("zdt1", seed), evaluations=30).judge.best() for seed in range(6)]
    theirs = [search("random", make("zdt1", seed), evaluations=30).judge.best() for seed in range(6)]
    assert mannwhitneyu(ours, theirs, alternative="greater").pvalue < 0.01


def test_it_is_the_default() -> None:
    assert registry.settings("algorithms", "auto") == Auto()
