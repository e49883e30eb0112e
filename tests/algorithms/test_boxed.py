"""Boxes from earlier studies: learnt, kept in the study's record, and given up where they prove wrong."""
from fettle.algorithms.boxed import Boxed
from fettle.testing import algorithms as suite
import pytest
EARLIER = [
    {"lr": 0.01, "n": 2, "kind": "tree", "kind.tree.depth": 8, "kind.tree.opt": "adam", "size": "32", "flag": 1,
     "a": 1, "x": 0.3, "c": "u", **{f"x{i}": 0.4 for i in range(25)}},
    [{"params": {"lr": 0.03, "n": 3, "kind": "flat", "size": "16", "flag": None, "a": 2, "x": 0.4}, "loss": 0.5},
     {"params": {"lr": 1.0, "n": 8}, "loss": 0.9}, {"params": {}, "loss": None}],
    {"kind": "r", "b": "x", "foreign": 3},
]
@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("inner", ["random", "tpe", "auto"])
def test_conformance(check: suite.Check, inner: str) -> None:
    check(Boxed(inner, EARLIER))
