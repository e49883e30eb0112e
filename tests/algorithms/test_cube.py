"""The unit cube that model-based search walks: real values, active columns, parts, neighbours."""

import numpy as np
import pytest

from fettle.algorithms.cube import Cube, Held
from fettle.core.space import Categorical, Choice, Float, Int, Ordinal, Space

NESTED = Space(
    lr=Float(1e-4, 1, log=True),
    n=Int(1, 8),
    kind=Choice(
        tree=Space(depth=Int(1, 64, log=True), opt=Choice(sgd=Space(m=Float(0, 1)), adam=Space())),
        flat=Space(),
    ),
    size=Ordinal(["16", "128", "32"]),
    flag=Categorical([True, 1, "1", None]),
    wide=Int(1, 1_000_000),
    stepped=Float(0, 1, step=0.25),
    where=["n <= 6 or size == '16'"],
)
KIND, OPT = NESTED.names.index("kind"), NESTED.names.index("kind.tree.opt")


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def cube() -> Cube:
    return Cube(NESTED)


def made(cube: Cube, how: str, held: Held) -> np.ndarray:
    if how == "drawn":
        return cube.drawn(200, rng(), held)
    some = cube.drawn(5, rng(), held)
    if how == "around":
        return cube.around(some, 200, rng(), held)
    return np.concatenate([cube.neighbours(u, rng(), held) for u in some])


@pytest.mark.parametrize("how", ["drawn", "around", "neighbours"])
@pytest.mark.parametrize("branch", [None, "tree", "flat"])
def test_points_are_params_of_the_space_and_what_is_held_stays(cube: Cube, how: str, branch: str | None) -> None:
    held = {} if branch is None else {KIND: NESTED.columns[KIND].domain.encode(branch)}
    U = made(cube, how, held)
    assert len(U) > 20 and np.array_equal(np.isnan(U), ~NESTED.active(U))
    assert np.nanmin(U) >= 0 and np.nanmax(U) <= 1
    params = NESTED.decode(U)
    assert np.allclose(NESTED.encode(params), U, atol=1e-12, equal_nan=True)  # real values only: there and back
    allowed = cube.allowed(U)
    assert allowed.tolist() == [NESTED.contains(p) for p in params] and allowed.any()
    assert cube.within(U, held).all()
    assert branch is None or {p["kind"] for p in params} == {branch}
    assert cube.params(U[0]) == params[0]


def test_points_differ_and_follow_the_seed(cube: Cube) -> None:
    for how in ("drawn", "around"):
        U = made(cube, how, {})
        assert len({NESTED.key(p) for p in NESTED.decode(U)}) > 150
        assert np.array_equal(U, made(cube, how, {}), equal_nan=True)


def test_around_is_nearer_than_drawn() -> None:
    box = Cube(Space({f"x{i}": Float(0, 1) for i in range(5)}))
    u = np.full((1, 5), 0.4)
    near, far = np.abs(box.around(u, 400, rng(), {}) - u), np.abs(box.drawn(400, rng(), {}) - u)
    assert np.median(near.max(axis=1)) < 0.5 * np.median(far.max(axis=1))
    assert (near == 0).any(axis=1).mean() > 0.3  # in some columns alone
    assert near.max() > 0.3


def test_around_goes_round_all_its_points() -> None:
    line = Cube(Space(x=Float(0, 1)))
    made = line.around(np.array([[0.1], [0.5], [0.9]]), 60, rng(), {})
    assert len(made) == 60 and all((np.abs(made - x) < 0.05).any() for x in (0.1, 0.5, 0.9))


def test_neighbours_differ_in_one_listed_column(cube: Cube) -> None:
    u = NESTED.encode([{"lr": 0.01, "n": 3, "kind": "flat", "size": "32", "flag": 1, "wide": 500, "stepped": 0.5}])[0]
    before = NESTED.decode(u[None])[0]
    changed: dict[str, set[object]] = {}
    for params in NESTED.decode(cube.neighbours(u, rng(), {})):
        (name, *more) = [n for n in before if params[n] != before[n] or type(params[n]) is not type(before[n])]
        assert not more
        changed.setdefault(name, set()).add((type(params[name]), params[name]))
    assert set(changed) == {"n", "kind", "size", "flag", "stepped"}  # lr and wide have (nearly) endless values
    assert {v for _, v in changed["kind"]} == {"tree"} and len(changed["flag"]) == 3
    assert {2, 4} <= {v for _, v in changed["n"]} and {"16", "128"} == {v for _, v in changed["size"]}
    assert {0.25, 0.75} <= {v for _, v in changed["stepped"]}


def test_neighbours_leave_held_columns(cube: Cube) -> None:
    u = cube.drawn(1, rng(), {})[0]
    flag = NESTED.names.index("flag")
    assert np.all(cube.neighbours(u, rng(), {flag: float(u[flag])})[:, flag] == u[flag])


def test_a_space_of_numbers_alone_has_no_neighbours() -> None:
    box = Cube(Space(x=Float(0, 1), y=Float(0, 1)))
    assert box.neighbours(np.array([0.2, 0.3]), rng(), {}).shape == (0, 2)


def test_snapping_takes_the_nearest_value() -> None:
    cube = Cube(Space(n=Int(1, 4), wide=Int(1, 10**6), x=Float(0, 1)))
    U = np.random.default_rng(0).random((300, 3))
    snapped = cube.snapped(U)
    places = np.array([0.125, 0.375, 0.625, 0.875])
    assert np.array_equal(snapped[:, 0], places[np.abs(U[:, :1] - places).argmin(axis=1)])
    assert np.abs(snapped[:, 1] - U[:, 1]).max() < 1e-6 and np.array_equal(snapped[:, 2], U[:, 2])
    assert np.array_equal(cube.snapped(snapped), snapped)


def test_leaves_are_all_ways_down_the_tree(cube: Cube) -> None:
    leaves = [{NESTED.names[j]: NESTED.columns[j].domain.decode(u) for j, u in leaf.items()} for leaf in cube.leaves(9)]
    assert leaves == [
        {"kind": "tree", "kind.tree.opt": "sgd"},
        {"kind": "tree", "kind.tree.opt": "adam"},
        {"kind": "flat"},
    ]
    assert cube.leaves(2) == [] and Cube(Space(x=Float(0, 1))).leaves(9) == []
    m = NESTED.names.index("kind.tree.opt.sgd.m")
    assert set(cube.ancestors(m)) == {KIND, OPT}
    assert {p["kind.tree.opt"] for p in NESTED.decode(cube.drawn(20, rng(), cube.ancestors(m)))} == {"sgd"}


def test_small_finite_spaces_are_laid_out() -> None:
    finite = Space(a=Int(1, 4), kind=Choice(p=Space(q=Int(0, 2)), r=Space()), where="a <= 2 or kind == 'r'")
    cube = Cube(finite)
    assert cube.grid is not None and len(cube.grid) == finite.size == 10
    assert sorted(cube.places.values()) == list(range(10)) and cube.allowed(cube.grid).all()
    assert Cube(NESTED).grid is None


def test_listed_params_are_the_only_ones_allowed() -> None:
    space = Space(x=Float(0, 1), y=Float(0, 1), only=[{"x": 0.1, "y": 0.2}, {"x": 0.3, "y": 0.4}])
    cube = Cube(space)
    assert cube.grid is not None and np.allclose(cube.grid, [[0.1, 0.2], [0.3, 0.4]])
    assert cube.allowed(np.array([[0.1, 0.2], [0.1, 0.4]])).tolist() == [True, False]
