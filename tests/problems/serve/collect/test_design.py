"""The space, the order of its points, and the plan."""

import itertools
from typing import Any

import numpy as np
import pytest

from fettle.core.errors import InvalidInput
from fettle.problems.serve.collect.grid import ordered, shared_space, spread
from fettle.problems.serve.collect.plan import Settings, top, total, wanted
from fettle.problems.serve.collect.rows import done, key

POINTS = ordered(shared_space(2), seed=0)


def line(
    model: str, params: dict[str, Any], repeat: int = 0, throughput: float = 1.0, p99: float = 1.0
) -> dict[str, Any]:
    metrics = {"throughput_rps": throughput, "latency_p99_s": p99}
    return {"model": model, "params": params, "repeat": repeat, "metrics": metrics}


def test_the_space_has_no_idle_points() -> None:
    assert len(POINTS) == 270 == len({key("m", params, 0) for params in POINTS})
    assert not [p for p in POINTS if p["threads"] == 1 and p["spinning"]]
    one = shared_space(1)
    assert set(one.names) == {"workers", "max_batch", "precision", "graph_optimization"}
    assert {p["workers"] for p in shared_space(8).enumerate()} == {1, 2, 4, 8, 12}


def test_the_order_is_the_seeds() -> None:
    assert ordered(shared_space(2), seed=0) == POINTS
    assert ordered(shared_space(2), seed=1) != POINTS


def test_any_beginning_covers_the_space() -> None:
    """No point lies further from a design of 60 than from a random one, by much; corners come first."""
    space = shared_space(2)
    U = space.encode(POINTS)

    def gap(rows: np.ndarray) -> float:
        return float(np.sqrt(((U[:, None] - U[None, rows]) ** 2).sum(axis=2)).min(axis=1).max())

    rng = np.random.default_rng(0)
    random = [gap(rng.choice(len(U), 60, replace=False)) for _ in range(20)]
    assert gap(np.arange(60)) < min(random)
    assert all(p["graph_optimization"] == "all" and p["max_batch"] in (1, 16) for p in POINTS[:16])
    for name in space.names:
        assert {p[name] for p in POINTS[:60]} == {p[name] for p in POINTS}


def test_models_that_differ_are_chosen() -> None:
    X = np.array([[0.0, 0.0], [0.1, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0], [9.9, 10.0]])
    assert set(spread(X, 4)) <= {0, 1, 2, 3, 4, 5}
    corners = {frozenset({0, 1}), frozenset({2}), frozenset({3}), frozenset({4, 5})}
    assert all(any(i in corner for i in spread(X, 4)) for corner in corners)


def test_every_model_comes_first_in_turn_then_grids_then_repeats() -> None:
    settings = Settings(points=3, full=1, top=2, repeats=2)
    lines: list[dict[str, Any]] = []
    seen = []
    for one in wanted(["a", "b"], ["b"], POINTS[:5], settings, lines, 2):
        seen.append((one.model, POINTS.index(one.params), one.repeat))
        lines.append(line(one.model, one.params, one.repeat, throughput=float(POINTS.index(one.params))))
    assert seen[:8] == [
        ("a", 0, 0),
        ("b", 0, 0),
        ("a", 1, 0),
        ("b", 1, 0),
        ("a", 2, 0),
        ("b", 2, 0),
        ("b", 3, 0),
        ("b", 4, 0),
    ]
    assert seen[8:] == [("b", 4, 1), ("b", 3, 1), ("b", 4, 2), ("b", 3, 2)]
    assert len(seen) == total(2, 1, 5, settings) == len(done(lines))


def test_the_top_looks_at_limits_too() -> None:
    """The fastest point has a latency that no tight limit allows."""
    figures = [(100.0, 9.0), (90.0, 2.5), (80.0, 1.2), (70.0, 1.0), (60.0, 9.0)]
    lines = [line("m", POINTS[i], throughput=t, p99=p) for i, (t, p) in enumerate(figures)]
    lines += [line("m", POINTS[5], throughput=1e9) | {"failure": "oom"}, line("m", POINTS[4], 1, throughput=1e9)]
    assert [POINTS.index(p) for p in top(lines, "m", 3, 1)] == [0, 1, 2]
    assert {POINTS.index(p) for p in top(lines, "m", 99, 1)} == {0, 1, 2, 3, 4}
    assert top(lines, "other", 3, 1) == []


def test_the_top_looks_at_cores_too() -> None:
    """Two cores give half as much again, three workers on two cores no more."""
    lines = [
        line("m", {"workers": workers, "threads": 1}, throughput=t)
        for workers, t in ((1, 100.0), (2, 150.0), (3, 151.0))
    ]
    assert [p["workers"] for p in top(lines, "m", 2, cores=2)] == [3, 1]
    assert [p["workers"] for p in top(lines, "m", 2, cores=1)] == [3, 2]


def test_keys_ignore_the_order_of_params() -> None:
    a, b = {"x": 1, "y": 2}, {"y": 2, "x": 1}
    assert key("m", a, 0) == key("m", b, 0)
    assert len({key(m, a, r) for m, r in itertools.product("ab", (0, 1))}) == 4


@pytest.mark.parametrize("name", ["points", "full", "top", "repeats", "seed"])
def test_settings_are_checked(name: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        Settings(**{name: -1})
