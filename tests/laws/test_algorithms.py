"""The conformance suite on every registered algorithm, and on ones that break its rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fettle import registry
from fettle.algorithms.gp_bo import GPBO
from fettle.algorithms.random import RandomSearch
from fettle.core.protocols import Proposal
from fettle.core.space import Params, Space
from fettle.testing import algorithms as suite


@pytest.mark.parametrize("name", registry.names("algorithms"))
@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: suite.Check, name: str) -> None:
    check(registry.settings("algorithms", name))


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
def test_conformance_on_warped_inputs(check: suite.Check) -> None:
    check(GPBO(warp=True))


def test_the_finite_space_has_twelve_points() -> None:
    assert suite.finite().size == len(list(suite.finite().enumerate())) == 12


@dataclass(frozen=True, slots=True)
class Broken:
    """Random search with one fault."""

    fault: str

    def build(self, space: Space, *more: Any) -> "BrokenSearch":
        return BrokenSearch(space, self.fault)


class BrokenSearch(RandomSearch):
    def __init__(self, space: Space, fault: str) -> None:
        super().__init__(space)
        self.space = space
        self.fault = fault
        self.asked = 0

    def ask(self, n: int, number: int, pending: Sequence[Params], rng: np.random.Generator) -> list[Proposal]:
        self.asked += 1
        if self.fault == "repeats":
            return [Proposal(params) for params in self.space.sample(n, rng)]
        if self.fault == "deaf to pending":
            pending = []
        if self.fault == "remembers asks":
            rng = np.random.default_rng([number, self.asked])
        if self.fault == "hash order":
            rng = np.random.default_rng(abs(hash(self.space.names)))
        made = super().ask(n, number, pending, rng)
        if self.fault == "inactive names":
            made = [Proposal({**dict.fromkeys(self.space.names, 1), **p.params}) for p in made]
        if self.fault == "wrong types":
            made = [Proposal({name: str(value) for name, value in p.params.items()}) for p in made]
        if self.fault == "collapses":
            made = [made[0]] * n
        return made


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("repeats", suite.check_exhaustion),
        ("deaf to pending", suite.check_pending_and_batches),
        ("collapses", suite.check_pending_and_batches),
        ("remembers asks", suite.check_replay),
        ("inactive names", suite.check_valid_everywhere),
        ("wrong types", suite.check_valid_everywhere),
        ("hash order", suite.check_hash_seed),
    ],
)
def test_the_suite_finds_faults(fault: str, check: suite.Check) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check(Broken(fault))
