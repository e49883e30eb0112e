"""Conformance suite for algorithms.

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_algorithm(check):
        check(MySettings())

Each check takes frozen settings and raises AssertionError. `check_algorithm(settings)` runs all of them.
"""

import base64
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence

import numpy as np

from fettle.core.errors import Exhausted
from fettle.core.protocols import Algorithm, AlgorithmSettings, Proposal
from fettle.core.space import Categorical, Choice, Float, Int, Ordinal, Params, Space
from fettle.core.trial import FAILURES, Constraint, Objective, State, Trial, outcome

Check = Callable[[AlgorithmSettings], None]
LOSS = (Objective("loss"),)
_SEED = 7


def nested() -> Space:
    """Every kind of domain, two levels of choices, a known constraint; infinite."""
    return Space(
        lr=Float(1e-4, 1, log=True),
        n=Int(1, 8),
        kind=Choice(
            tree=Space(depth=Int(1, 64, log=True), opt=Choice(sgd=Space(m=Float(0, 1)), adam=Space())),
            flat=Space(),
        ),
        size=Ordinal(["16", "128", "32"]),
        flag=Categorical([True, 1, "1", None]),
        where=["n <= 6 or size == '16'"],
    )


def finite() -> Space:
    """Twelve points, under conditions and a known constraint."""
    return Space(
        a=Int(1, 4), kind=Choice(p=Space(q=Int(0, 2)), r=Space(), s=Space()), where=["a <= 2 or kind == 'r'", "a < 5"]
    )


def tabular() -> Space:
    """Twelve listed params."""
    listed = [{"x": x / 10, "c": c} for x in range(1, 7) for c in ("u", "v")]
    return Space(x=Float(0, 1), c=Categorical(["u", "v"]), only=listed)


def spaces() -> list[Space]:
    one = Space(a=Int(3, 3), b=Categorical(["x"]), c=Float(0.5, 0.5))
    return [nested(), finite(), tabular(), one, Space(), Space({f"x{i}": Float(0, 1) for i in range(25)})]


class Run:
    """Drives an algorithm as a study would: rng from (seed, number), tells in order."""

    def __init__(
        self,
        settings: AlgorithmSettings,
        space: Space,
        *,
        objectives: Sequence[Objective] = LOSS,
        constraints: Sequence[Constraint] = (),
    ) -> None:
        self.space, self.objectives, self.constraints = space, objectives, constraints
        self.algorithm: Algorithm = settings.build(space, objectives, constraints, _SEED, None)
        self.trials: list[Trial] = []

    def ask(self, n: int = 1, pending: Sequence[Params] = (), number: int | None = None) -> list[Proposal]:
        """Asks, and checks what comes back."""
        first = len(self.trials) + len(pending) if number is None else number
        made = self.algorithm.ask(n, first, list(pending), np.random.default_rng([_SEED, first]))
        assert 1 <= len(made) <= n, f"asked for {n}, got {len(made)} proposals: Exhausted has to say that none is left"
        for proposal in made:
            valid = self.space.validate(proposal.params)
            assert list(valid.items()) == list(proposal.params.items()), f"not canonical: {proposal.params}"
            same = all(type(valid[name]) is type(value) for name, value in proposal.params.items())
            assert same, f"wrong types: {proposal.params}"
        return made

    def tell(self, trial: Trial) -> None:
        if trial.number == len(self.trials):
            self.trials.append(trial)
        self.algorithm.tell(trial, outcome(trial, self.objectives, self.constraints))

    def step(self, make: Callable[[int, Params], Trial]) -> bool:
        """One ask and one tell; False at the end of the space."""
        try:
            (proposal,) = self.ask()
        except Exhausted:
            return False
        self.tell(make(len(self.trials), proposal.params))
        return True


def complete(number: int, params: Params, **metrics: float) -> Trial:
    """A trial whose loss depends on its params."""
    loss = sum(float(v) for v in params.values() if isinstance(v, int | float)) + 0.1 * len(params)
    return Trial(number, params, State.COMPLETE, metrics={"loss": loss, **metrics})


def _failed(number: int, params: Params) -> Trial:
    return Trial(number, params, State.FAILED, failure=FAILURES[number % len(FAILURES)])


def _mixed(number: int, params: Params) -> Trial:
    """Failures of all classes, stopped trials, NaN and infinite metrics, and missing ones."""
    good = complete(number, params)
    match number % 6:
        case 1:
            return Trial(number, params, State.FAILED, failure=FAILURES[number // 6 % len(FAILURES)])
        case 2:
            return Trial(number, params, State.STOPPED, metrics=good.metrics)
        case 3:
            return Trial(number, params, State.COMPLETE, metrics={"loss": math.nan})
        case 4:
            return Trial(number, params, State.COMPLETE, metrics={"loss": math.inf})
        case 5:
            return Trial(number, params, State.COMPLETE)
    return good


def check_valid_everywhere(settings: AlgorithmSettings) -> None:
    """Types, bounds, activity, `where` and `only`, in all kinds of spaces, with mixed results."""
    for space in spaces():
        run = Run(settings, space)
        for _ in range(60):
            if not run.step(_mixed):
                break
        assert run.trials, f"nothing was proposed in {space}"


def check_replay(settings: AlgorithmSettings) -> None:
    """The same tells give the same proposal, whatever was asked in between; ask twice, get the same twice."""
    for space in (nested(), finite(), tabular()):
        live = Run(settings, space)
        for _ in range(50):
            try:
                wanted = live.ask()
            except Exhausted:
                break
            live.ask(3, number=10_000)  # changes nothing
            assert live.ask() == wanted, "a second ask without a tell gives something else"
            fresh = Run(settings, space)
            if len(live.trials) % 7 == 0:
                for trial in live.trials:
                    fresh.tell(trial)
                assert fresh.ask() == wanted, f"a replay of {len(live.trials)} tells proposes something else"
            live.tell(_mixed(len(live.trials), wanted[0].params))


def check_pending_and_batches(settings: AlgorithmSettings) -> None:
    """In finite spaces pending params are not proposed again, and no batch holds a point twice."""
    for space in (finite(), tabular()):
        assert space.size is not None
        run = Run(settings, space)
        pending: list[Params] = []
        try:
            while True:
                pending += [proposal.params for proposal in run.ask(3, pending)]
                assert len({space.key(p) for p in pending}) == len(pending), "a point was proposed twice"
                assert len(pending) <= space.size
        except Exhausted:
            pass
        _assert_all(space, pending, settings)
    space = Space(x=Float(0, 1), y=Float(0, 1))
    batch = Run(settings, space).ask(5)
    assert len({space.key(p.params) for p in batch}) == len(batch) > 1, "the batch collapsed to one point"


def check_exhaustion(settings: AlgorithmSettings) -> None:
    """Every point of a finite space exactly once, then Exhausted, again and again."""
    one = Space(a=Int(3, 3), b=Categorical(["x"]))
    for space in (finite(), tabular(), one, Space()):
        for make in (complete, _failed, _mixed):
            run = Run(settings, space)
            while run.step(make):
                assert len(run.trials) <= (space.size or 0), "more proposals than points"
            _assert_all(space, [trial.params for trial in run.trials], settings)
            assert not run.step(make), "Exhausted is not the last word"


def _assert_all(space: Space, proposed: Sequence[Params], settings: AlgorithmSettings) -> None:
    keys = [space.key(params) for params in proposed]
    assert len(set(keys)) == len(keys), f"{settings}: a point was proposed twice"
    continuous = space.only is None and any(column.size is None for column in space.columns)
    assert continuous or set(keys) == {space.key(p) for p in space.enumerate()}, f"{settings}: points were left out"


def check_failures(settings: AlgorithmSettings) -> None:
    """Histories of nothing but failures, of each class, and of nothing but stopped or NaN trials."""
    makes: list[Callable[[int, Params], Trial]] = [
        _failed,
        lambda number, params: Trial(number, params, State.STOPPED, metrics={"loss": 1.0}),
        lambda number, params: Trial(number, params, State.COMPLETE, metrics={"loss": math.nan}),
        lambda number, params: Trial(number, params, State.PAUSED, metrics={"loss": 1.0}, fidelity=1.0),
    ]
    for make in makes:
        run = Run(settings, nested())
        for _ in range(60):
            assert run.step(make), "an infinite space has no end"  # the grid of `nested` has thousands of points


def check_objectives_and_constraints(settings: AlgorithmSettings) -> None:
    """Several objectives of both goals with constraints, also with figures missing."""
    goals = (Objective("loss"), Objective("gain", "maximize"))
    bounds = (Constraint("latency_s", upper=0.5), Constraint("gain", lower=1.0))
    run = Run(settings, nested(), objectives=goals, constraints=bounds)
    for i in range(60):
        more = {"gain": float(i % 5)} if i % 4 else {}
        late = {"latency_s": i % 3 / 2} if i % 7 else {}
        assert run.step(lambda n, p, m={**more, **late}: complete(n, p, **m))  # type: ignore[misc]


def check_foreign_tells(settings: AlgorithmSettings) -> None:
    """Params that it never proposed: enqueued, from elsewhere, repeated, and a baseline outside the space."""
    for space in (finite(), nested()):
        run = Run(settings, space)
        foreign = space.sample(6, np.random.default_rng(1))
        for params in [*foreign, foreign[0], {"outside": 1, "a": 99}]:
            run.tell(complete(len(run.trials), params))
        while len(run.trials) < 60 and run.step(complete):
            pass
        if space.size is not None:
            asked = [trial.params for trial in run.trials[8:]]
            known = {space.key(params) for params in foreign}
            assert not known & {space.key(params) for params in asked}, "a told point was proposed again"
            assert len(known) + len(asked) == space.size, "points were left out"


def check_later_rungs(settings: AlgorithmSettings) -> None:
    """A later tell of the same trial replaces the earlier, and uses up nothing more."""
    space = finite()
    run = Run(settings, space)
    while run.step(lambda n, p: Trial(n, p, State.PAUSED, fidelity=1.0, metrics={"loss": 1.0})):
        last = run.trials[-1]
        run.tell(Trial(last.number, last.params, State.COMPLETE, fidelity=3.0, metrics={"loss": 0.5}))
        run.tell(Trial(last.number, last.params, State.FAILED, fidelity=9.0, failure="oom"))
    _assert_all(space, [trial.params for trial in run.trials], settings)


def check_hash_seed(settings: AlgorithmSettings) -> None:
    """Proposals do not depend on PYTHONHASHSEED."""
    code = (
        "import sys, base64, pickle; from fettle.testing.algorithms import trace;"
        "print(trace(pickle.loads(base64.b64decode(sys.argv[1]))))"
    )
    argument = base64.b64encode(pickle.dumps(settings)).decode()
    path = os.pathsep.join(p for p in sys.path if p)
    seen = {
        subprocess.run(
            [sys.executable, "-c", code, argument],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1, "proposals depend on PYTHONHASHSEED"


def trace(settings: AlgorithmSettings) -> str:
    """Forty proposals in the nested space and all of the finite one, as text."""
    lines = []
    for space in (nested(), finite()):
        run = Run(settings, space)
        while len(run.trials) < 40 and run.step(_mixed):
            pass
        lines += [repr(trial.params) for trial in run.trials]
    return "\n".join(lines)


CHECKS: tuple[Check, ...] = (
    check_valid_everywhere,
    check_replay,
    check_pending_and_batches,
    check_exhaustion,
    check_failures,
    check_objectives_and_constraints,
    check_foreign_tells,
    check_later_rungs,
    check_hash_seed,
)


def check_algorithm(settings: AlgorithmSettings) -> None:
    """Runs all checks."""
    for check in CHECKS:
        check(settings)
