import json
import math
import pickle

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fettle.core.errors import InvalidInput, ParamsError, SpaceError
from fettle.core.space import Categorical, Choice, Float, Group, Int, Ordinal, Space

pytestmark = pytest.mark.filterwarnings("error")
NESTED = Space(
    lr=Float(1e-4, 1, log=True, unit="1/step"),
    kind=Choice(
        a=Space(opt=Choice(sgd=Space(momentum=Float(0, 1)), adam=Space()), n=Int(1, 9, step=2), where=["n != 3"]),
        b=Space(),
    ),
    mode=Categorical([1, 1.0, True, "1", None]),
    size=Ordinal(["128", "16"]),
    where=["lr < 0.5 or size == '16'"],
)

_small = st.floats(-1e6, 1e6)


@st.composite
def domains(draw):
    """Any domain, with one of its values."""
    kind = draw(st.sampled_from(["float", "log", "step", "int", "logint", "categorical", "ordinal"]))
    if kind == "float":
        low, high = sorted((draw(_small), draw(_small)))
        return Float(low, high), draw(st.floats(low, high))
    if kind == "log":
        low, high = sorted((draw(st.floats(1e-9, 1e9)), draw(st.floats(1e-9, 1e9))))
        return Float(low, high, log=True), draw(st.floats(low, high))
    if kind == "step":
        log = draw(st.booleans())
        low = draw(st.floats(1e-3, 1e3))
        domain = Float(low, low + draw(st.floats(0, 100)), step=draw(st.floats(0.01, 10)), log=log)
        return domain, draw(st.sampled_from(list(domain.values())))
    if kind in ("int", "logint"):
        low = draw(st.integers(1 if kind == "logint" else -1000, 10**6))
        domain = Int(low, low + draw(st.integers(0, 10**9)), step=draw(st.integers(1, 50)), log=kind == "logint")
        return domain, domain.low + domain.step * draw(st.integers(0, domain.size - 1))
    scalar = st.one_of(st.booleans(), st.integers(-5, 5), st.sampled_from([1.0, 0.5]), st.text(max_size=2), st.none())
    choices = draw(st.lists(scalar, min_size=1, unique_by=lambda v: (type(v), v)))
    return (Categorical if kind == "categorical" else Ordinal)(choices), draw(st.sampled_from(choices))


@given(domains())
@settings(max_examples=300, deadline=None)
def test_value_survives_the_unit_interval_and_json(pair) -> None:
    domain, value = pair
    assert domain.check(value) == value
    for u in (domain.encode(value), domain.encode_many([value])[0]):
        assert 0 <= u <= 1
        for back in (domain.decode(u), domain.decode_many(np.array([u]))[0]):
            assert type(back) is type(value)
            if domain.size is None:
                wide = 0 if domain.log else domain.high - domain.low
                assert abs(back - value) <= 1e-12 * max(abs(value), wide, 1e-300)
            else:
                assert back == value
    space = Space(x=domain)
    again = Space.from_json(json.loads(json.dumps(space.to_json())))
    assert again == space and again.columns == space.columns


@given(domains(), st.floats(-2, 3))
@settings(max_examples=200, deadline=None)
def test_any_number_decodes_into_the_domain(pair, u) -> None:
    domain, _ = pair
    assert domain.check(domain.decode(u)) == domain.decode(u)


@pytest.mark.parametrize("domain", [Int(1, 7), Int(0, 9, step=3), Float(0, 1, step=0.25), Ordinal([4, 1, 2])])
def test_uniform_numbers_decode_uniformly(domain) -> None:
    values = domain.decode_many((np.arange(8400) + 0.5) / 8400)
    assert {values.count(v) for v in domain.values()} == {8400 // domain.size}


def test_log_int_is_uniform_in_the_logarithm() -> None:
    values = np.array(Int(1, 1024, log=True).decode_many((np.arange(10000) + 0.5) / 10000))
    share = np.mean(values <= 31)  # bins reach from 0.5 to 1024.5
    assert share == pytest.approx(math.log(31.5 / 0.5) / math.log(1024.5 / 0.5), abs=1e-3)


def test_ordinal_is_ordered_by_its_numbers() -> None:
    assert Ordinal(["128", "16", "8"]).choices == ("8", "16", "128")
    assert Ordinal(["128ms", "16ms"]).choices == ("16ms", "128ms")
    assert Ordinal(["O3", "O1"]).choices == ("O1", "O3")
    assert Ordinal(["512KB", "1MB"]).choices == ("512KB", "1MB")
    assert Ordinal(["low", "high"]).choices == ("low", "high")
    assert Ordinal([True, False]).choices == (True, False)


def test_types_are_kept_apart() -> None:
    assert Categorical([1]) != Categorical([True]) != Categorical([1.0])
    params = [{"x": v} for v in (1, 1.0, True, "1", None)]
    space = Space(x=Categorical([p["x"] for p in params]))
    assert len({space.key(p) for p in params}) == 5
    assert [type(p["x"]) for p in space.decode(space.encode(params))] == [int, float, bool, str, type(None)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Float(1, 0),
        lambda: Float(0, math.inf),
        lambda: Float(math.nan, 1),
        lambda: Float(0, 1, log=True),
        lambda: Float(0, 1, step=0),
        lambda: Float(0, 1, log=1),
        lambda: Float("0", 1),
        lambda: Float(-1.7e308, 1.7e308),
        lambda: Int(1, 2.5),
        lambda: Int(True, 2),
        lambda: Int(0, 8, step=-1),
        lambda: Int(0, 2**50),
        lambda: Int(1, 2, unit=3),
        lambda: Categorical([]),
        lambda: Categorical("abc"),
        lambda: Categorical({"a", "b"}),
        lambda: Categorical(["a", "a"]),
        lambda: Categorical([math.nan]),
        lambda: Ordinal([[1]]),
        Choice,
        lambda: Choice({"a.b": Space()}),
        lambda: Choice(a=Float(0, 1)),
        lambda: Space({"a.b": Int(0, 1)}),
        lambda: Space({"": Int(0, 1)}),
        lambda: Space(a=3),
        lambda: Space(a=Ordinal(["8", "16"]), where="a > 1"),
        lambda: Space({"a": Int(0, 1)}, b=Int(0, 1)),
        lambda: Space(a=Int(0, 1), only=[]),
        lambda: Space(a=Int(0, 1), only=[{"a": 2}]),
        lambda: Space(a=Int(0, 1), prior={"b": 1}),
        lambda: Space(k=Choice(a=Space(x=Int(0, 1), only=[{"x": 1}]))),
        lambda: Space.from_json({"a": {"int": [1, 8], "stepp": 2}}),
        lambda: Space.from_json({"a": {"int": [1]}}),
        lambda: Space.from_json({"a": [1, 8]}),
        lambda: Space.from_json({"a": {"choice": {True: {}}}}),
        lambda: Space.from_json([1]),
    ],
)
def test_impossible_spaces_are_refused(make) -> None:
    with pytest.raises(SpaceError):
        make()


def test_round_trip_by_json_and_pickle() -> None:
    space = Space(NESTED.domains, where=NESTED.where, prior={"lr": {"mean": 0.1}})
    for again in (Space.from_json(json.loads(json.dumps(space.to_json()))), pickle.loads(pickle.dumps(space))):
        assert again == space and hash(again) == hash(space)
        assert again.columns == space.columns and again.prior == {"lr": {"mean": 0.1}}


def test_samples_encode_and_decode_with_activity() -> None:
    rng = np.random.default_rng(0)
    points = NESTED.sample(300, rng)
    U = NESTED.encode(points)
    assert U.shape == (300, len(NESTED)) and np.array_equal(np.isnan(U), ~NESTED.active(U))
    back = NESTED.decode(U)
    assert np.allclose(NESTED.encode(back), U, rtol=1e-12, equal_nan=True)
    for params, same in zip(points, back, strict=True):
        assert NESTED.validate(params) == params and list(params) == list(same)
        assert ("kind.a.opt.sgd.momentum" in params) == (params.get("kind.a.opt") == "sgd")
        assert params["lr"] < 0.5 or params["size"] == "16"
        assert params.get("kind.a.n") != 3
    assert {p["kind"] for p in points} == {"a", "b"}
    assert all(NESTED.contains({**p, "lr": 0.1}) for p in NESTED.decode(rng.random((50, len(NESTED))) * 3 - 1)
               if p.get("kind.a.n") != 3)  # fmt: skip


def test_parent_and_branch_of_columns() -> None:
    column = NESTED.columns[NESTED.names.index("kind.a.opt.sgd.momentum")]
    assert column.branch == "sgd" and column.parent is not None
    assert NESTED.columns[column.parent].name == "kind.a.opt"


def test_nan_in_an_active_column_is_refused() -> None:
    with pytest.raises(InvalidInput, match="NaN"):
        Space(x=Float(0, 1)).decode(np.array([[math.nan]]))


def test_validate_lists_all_that_is_wrong_and_makes_canonical() -> None:
    with pytest.raises(ParamsError) as caught:
        NESTED.validate({"lr": 3, "kind": "b", "kind.a.n": 1, "size": "16", "typo": 1})
    for part in ("unknown: typo", "missing: mode", "inactive: kind.a.n (needs kind='a')", "[0.0001, 1.0]"):
        assert part in str(caught.value)
    with pytest.raises(ParamsError, match=r"violates where .lr < 0"):
        NESTED.validate({"lr": 0.9, "kind": "b", "mode": None, "size": "128"})
    got = Space(x=Float(0, 4), n=Int(0, 4)).validate({"n": np.int64(2), "x": 1})
    assert list(got.items()) == [("x", 1.0), ("n", 2)] and type(got["x"]) is float and type(got["n"]) is int
    for bad in (True, "2", 2.5, None, math.nan):
        assert not Space(n=Int(0, 4)).contains({"n": bad})


def test_size_and_enumeration() -> None:
    space = Space(a=Int(1, 4), k=Choice(p=Space(q=Int(0, 2)), r=Space()), where=["a <= 2 or k == 'r'"])
    points = list(space.enumerate())
    assert space.raw_size == 16 and space.size == 10 == len({space.key(p) for p in points})
    assert points[:4] == [{"a": 1, "k": "p", "k.p.q": q} for q in range(3)] + [{"a": 1, "k": "r"}]
    assert {space.key(p) for p in space.sample(500, np.random.default_rng(0))} == {space.key(p) for p in points}
    assert Space(x=Float(0, 1)).size is None and Space().size == 1 and list(Space().enumerate()) == [{}]
    assert Space({f"n{i}": Int(0, 99) for i in range(50)}).size == 100**50
    assert [p["x"] for p in Space(x=Float(0, 1)).grid(3)] == [0, 0.5, 1]
    with pytest.raises(SpaceError, match="infinitely many"):
        Space(x=Float(0, 1)).enumerate()
    assert next(Space({f"n{i}": Int(0, 1) for i in range(3000)}).enumerate())["n2999"] == 0


def test_rare_allowed_points_are_still_drawn_uniformly_and_nothing_is_an_error() -> None:
    rare = Space(a=Int(1, 300), b=Int(1, 300), where="a == 7 and b in (5, 6)")
    assert {p["b"] for p in rare.sample(8, np.random.default_rng(0))} == {5, 6}
    for space in (Space(a=Int(1, 9), where="a > 9"), Space(x=Float(0, 1), where="x > 1")):
        with pytest.raises(SpaceError, match="leave"):
            space.sample(1, np.random.default_rng(0))


def test_only_restricts_to_listed_params_and_merges_duplicates() -> None:
    listed = [{"x": 1, "c": "u"}, {"x": 1.0, "c": "u"}, {"x": 0.5, "c": "v"}, {"x": 0.25, "c": "v"}]
    space = Space(x=Float(0, 1), c=Categorical(["u", "v"]), only=listed)
    assert space.size == 3 and len(list(space.enumerate())) == 3
    rng = np.random.default_rng(0)
    assert {p["x"] for p in space.sample(50, rng)} == {1.0, 0.5, 0.25}
    near = [space.mutate({"x": 0.5, "c": "v"}, rng)["x"] for _ in range(200)]
    assert near.count(0.25) > near.count(1.0) > 0 and 0.5 not in near
    assert not space.contains({"x": 0.6, "c": "v"})
    assert Space.from_json(space.to_json()).only == space.only


@given(st.integers(0, 2**32), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_mutants_are_other_allowed_params(seed, n) -> None:
    rng = np.random.default_rng(seed)
    params = NESTED.sample(1, rng)[0]
    mutant = NESTED.mutate(params, rng, n=n)
    assert NESTED.validate(mutant) == mutant and NESTED.key(mutant) != NESTED.key(params)


def test_every_neighbour_is_within_reach_of_mutation() -> None:
    rng = np.random.default_rng(0)
    space = Space(a=Int(1, 5), b=Categorical(["x", "y", "z"]), f=Float(0, 1, step=0.5))
    reached = {space.key(space.mutate({"a": 3, "b": "x", "f": 0.5}, rng)) for _ in range(500)}
    assert len(reached) == 4 + 2 + 2
    with pytest.raises(SpaceError, match="cannot mutate"):
        Space(a=Int(1, 1)).mutate({"a": 1}, rng)


def test_join_and_part() -> None:
    joined = Space.join(nas=NESTED, serve=Space(n=Int(1, 4), where="n < 4"))
    params = joined.sample(1, np.random.default_rng(0))[0]
    assert "serve.n" in params and "serve" not in params
    assert NESTED.validate(joined.part("nas", params)) == joined.part("nas", params)
    assert not joined.contains({**params, "serve.n": 4})
    assert Space.from_json(joined.to_json()) == joined
    both = Space({"a": Group(Space(x=Int(1, 2))), "b": Group(Space(y=Int(1, 2)))}, where="a.x != b.y")
    assert both.size == 2
    with pytest.raises(InvalidInput, match="unknown stage"):
        joined.part("x", params)


def test_narrow_fixes_and_restricts() -> None:
    small = NESTED.narrow({"momentum": "0.5", "mode": "1"}, {"n": ["1", 5]})
    points = small.sample(200, np.random.default_rng(0))
    assert {p.get("kind.a.opt.sgd.momentum") for p in points} == {None, 0.5}
    assert {p.get("kind.a.n") for p in points} == {None, 1, 5} and {p["kind"] for p in points} == {"a", "b"}
    assert {(type(p["mode"]), p["mode"]) for p in points} == {(str, "1")}
    assert all(NESTED.contains(p) for p in points)
    assert NESTED.narrow({"kind": "b"}).names == ("lr", "kind", "mode", "size")
    where = Space(k=Choice(a=Space(x=Int(1, 4)), b=Space()), n=Int(1, 4), where=["k.a.x < n", "n < 4"])
    assert where.narrow({"k": "b"}).where == ("n < 4",)
    listed = Space(a=Int(1, 2), b=Int(1, 2), only=[{"a": 1, "b": 1}, {"a": 2, "b": 2}]).narrow({"a": 2})
    assert listed.only == ({"a": 2, "b": 2},)
    joined = Space.join(x=NESTED, y=NESTED)
    assert joined.narrow({"x.size": "16"}).size is None


@pytest.mark.parametrize(
    ("fix", "message"),
    [
        ({"typo": 1}, "unknown parameter"),
        ({"lr": 2}, "expected a number in"),
        ({"lr": "fast"}, "expected a number in"),
        ({"size": "64"}, "expected one of"),
        ({"kind": "c"}, "expected one of"),
        ({"n": 2}, "expected an integer"),
    ],
)
def test_narrowing_to_what_is_not_there_is_refused(fix, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        NESTED.narrow(fix)


def test_narrowing_names_candidates_and_refuses_an_empty_rest() -> None:
    with pytest.raises(InvalidInput, match="ambiguous") as caught:
        Space.join(a=Space(n=Int(1, 2)), b=Space(n=Int(1, 2))).narrow({"n": 1})
    assert "a.n, b.n" in caught.value.hint
    with pytest.raises(InvalidInput, match="nothing is left"):
        Space(a=Int(1, 4), where="a > 2").narrow({"a": 1})


def test_difference_is_readable() -> None:
    old, new = Space(a=Int(1, 4), b=Int(1, 2)), Space(a=Int(1, 8), c=Float(0, 1))
    text = old.describe_difference(new)
    assert "a: {'int': [1, 4]} -> {'int': [1, 8]}" in text and "b:" in text and "c:" in text
    assert old.describe_difference(Space(a=Int(1, 4), b=Int(1, 2))) == ""
    assert "order" in old.describe_difference(Space(b=Int(1, 2), a=Int(1, 4)))


def test_yaml_form() -> None:
    text = """
    lr: {float: [1e-4, 1], log: true}
    batching: {choice: {"on": {max_batch: {ordinal: [1, 2, 4]}}, "off": }}
    where: ["lr < 0.5"]
    """
    space = Space.from_dict(yaml.safe_load(text))
    assert space.names == ("lr", "batching", "batching.on.max_batch") and space.where == ("lr < 0.5",)
    assert space.columns[0].domain == Float(1e-4, 1, log=True)
    with pytest.raises(SpaceError, match="branch name") as caught:
        Space.from_dict(yaml.safe_load("batching: {choice: {on: {}, off: {}}}"))
    assert "quote" in caught.value.hint
