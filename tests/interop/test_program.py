"""What is read off a program's runs: conditions, ranges, and a way back from params to them."""

import pytest

from fettle.core.space import Categorical, Choice, Float, Int, Space
from fettle.interop.program import Program, joined

UNIT = Float(0, 1)
KIND = Categorical(range(3))


def program(*runs: dict, domains: dict, whole: bool = True) -> Program:
    made = Program()
    for run in runs:
        made.add(run, {name: domains[name] for name in run}, whole=whole)
    return made


def test_parameters_of_all_runs_stand_side_by_side() -> None:
    made = program({"a.b": 0.5, "": 3}, domains={"a.b": UNIT, "": Int(1, 4)})
    assert made.space == Space(p0=UNIT, p1=Int(1, 4))
    params = made.encoded({"a.b": 0.25, "": 2})
    assert params == {"p0": 0.25, "p1": 2}
    assert made.decoded(params) == {"a.b": 0.25, "": 2}


def test_a_category_that_decides_becomes_a_choice() -> None:
    domains = {"k": KIND, "x": UNIT, "y": UNIT, "z": UNIT}
    runs = [{"k": 0, "z": 0.1, "x": 0.1}, {"k": 1, "z": 0.1, "y": 0.3}, {"k": 2, "z": 0.2}]
    made = program(*runs, domains=domains)
    assert made.space == Space(p0=Choice(v0=Space(p0=UNIT), v1=Space(p0=UNIT), v2=Space()), p1=UNIT), (
        "a choice per value; z is in all"
    )
    for run in runs:
        assert made.decoded(made.encoded(run)) == run
        assert made.space.contains(made.encoded(run))


def test_choices_within_choices() -> None:
    domains = {"k": KIND, "inner": Categorical(range(2)), "x": UNIT}
    runs = [{"k": 0, "inner": 0, "x": 0.5}, {"k": 0, "inner": 1}, {"k": 1}, {"k": 2}]
    made = program(*runs, domains=domains)
    inner = Space(p0=Choice(v0=Space(p0=UNIT), v1=Space()))
    assert made.space == Space(p0=Choice(v0=inner, v1=Space(), v2=Space()))
    assert made.decoded(made.encoded(runs[0])) == runs[0]


def test_an_integer_may_select_but_a_loop_over_layers_is_optional() -> None:
    selector = program({"k": 1, "x": 0.1}, {"k": 2, "y": 0.1}, domains={"k": Int(1, 2), "x": UNIT, "y": UNIT})
    assert selector.space == Space(p0=Choice(v0=Space(p0=UNIT), v1=Space(p0=UNIT)))
    layers = [{"n": n, **{f"w{i}": 0.1 * n for i in range(n)}} for n in range(1, 5)]
    made = program(*layers, domains={"n": Int(1, 4), **{f"w{i}": UNIT for i in range(4)}})
    assert made.space == Space({f"p{i}": d for i, d in enumerate([Int(1, 4), *[UNIT] * 4])})
    assert made.encoded({"n": 1, "w0": 0.1})["p4"] == 0.5, "what a run did not ask for sits in the middle"


def test_what_no_category_explains_is_optional() -> None:
    runs = [{"x": 0.1}, {"x": 0.9, "y": 0.2}, {"x": 0.8, "y": 0.4}]
    made = program(*runs, domains={"x": UNIT, "y": UNIT})
    assert made.space == Space(p0=UNIT, p1=UNIT)
    version = made.version
    made.add({"x": 0.2}, {"x": UNIT}, whole=True)
    assert made.version == version


def test_a_rule_by_chance_ends_with_the_run_that_breaks_it() -> None:
    domains = {"k": KIND, "x": UNIT}
    made = program({"k": 0, "x": 0.5}, {"k": 1}, domains=domains)
    assert made.space.columns[0].kind == "choice"
    made.add({"k": 1, "x": 0.5}, domains, whole=True)
    assert made.space == Space(p0=KIND, p1=UNIT)


def test_runs_that_ended_early_say_nothing_of_conditions() -> None:
    domains = {"k": KIND, "x": UNIT}
    made = program({"k": 0}, domains=domains, whole=False)
    assert made.space == Space(p0=KIND), "until there is a whole one"
    made.add({"k": 0, "x": 0.2}, domains, whole=True)
    made.add({"k": 1}, domains, whole=False)
    made.add({"k": 1, "x": 0.2}, domains, whole=True)
    assert made.space == Space(p0=KIND, p1=UNIT)


def test_late_changes_wait_so_that_retelling_stays_cheap() -> None:
    made = Program()
    for i in range(2000):
        made.add({"x": float(i)}, {"x": Float(0, i + 1)}, whole=True)
    assert made.version < 130
    assert made.domains["x"] == Float(0, 2000)


def test_a_range_that_grows_late_leaves_the_space_as_it_is_for_a_while() -> None:
    made = Program()
    runs = [{"k": 1 + i % 2, "xy"[i % 2]: 0.5} for i in range(1000)]
    for run in [*runs, {"k": 5, "x": 0.5}]:
        made.add(run, {name: Int(1, max(2, run["k"])) if name == "k" else UNIT for name in run}, whole=True)
    assert made.domains["k"] == Int(1, 5)
    assert made.space.contains(made.encoded({"k": 5, "x": 0.5}))


def test_single_values_are_no_parameters() -> None:
    made = program({"x": 1.0, "y": 0.1}, domains={"x": Float(1, 1), "y": UNIT})
    assert made.space == Space(p0=UNIT)
    assert made.decoded(made.encoded({"x": 1.0, "y": 0.1})) == {"y": 0.1}


@pytest.mark.parametrize(
    ("a", "b", "both"),
    [
        (Float(0, 1), Float(0.5, 2), Float(0, 2)),
        (Float(0, 1, step=0.25), Float(0.5, 2, step=0.25), Float(0, 2, step=0.25)),
        (Float(0, 1, step=0.25), Float(0.1, 1.1, step=0.25), Float(0, 1.1)),
        (Float(1, 2, log=True), Float(1, 4), Float(1, 4)),
        (Int(1, 9, step=2), Int(3, 13, step=2), Int(1, 13, step=2)),
        (Int(1, 9, step=2), Int(2, 10, step=2), Int(1, 10)),
    ],
)
def test_ranges_join(a: Float | Int, b: Float | Int, both: Float | Int) -> None:
    assert joined(a, b) == joined(b, a) == both
