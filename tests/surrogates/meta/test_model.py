"""Meta-models: every method through one suite, files, scales, and knobs of different spaces."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr

import fettle
from fettle.core.errors import InvalidInput
from fettle.surrogates.meta import MetaModel, Task, load, train
from fettle.surrogates.meta.knobs import Knobs
from fettle.surrogates.meta.methods import METHODS as ALL_METHODS
from fettle.surrogates.meta.prior_gp import PriorGP

# second-order MAML trains for half a minute
METHODS = [pytest.param(name, marks=pytest.mark.slow) if name == "maml" else name for name in ALL_METHODS]

SPACE = fettle.Space(batch=fettle.Int(1, 64, log=True), mode=fettle.Categorical(["a", "b"]))
GRID = [{"batch": b, "mode": m} for b in (1, 2, 4, 8, 16, 32, 64) for m in "ab"]


def tasks(n: int = 4, *, rows: int = 14) -> list[Task]:
    """Rates that saturate; a level of their own; batch 64 of the even ones runs out of memory."""
    made = []
    for t in range(n):
        figures = []
        for params in GRID[:rows]:
            if params["batch"] == 64 and t % 2 == 0:
                figures.append((params, "oom"))
            else:
                rate = (
                    10.0 ** (1 + t % 3) * params["batch"] / (params["batch"] + 2.0 + t) * (1 + (params["mode"] == "a"))
                )
                figures.append((params, {"rate": rate, "offset": rate - 30.0}))
        made.append(Task(f"t{t}", figures))
    return made


each_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module", params=METHODS)
def model(request: pytest.FixtureRequest) -> MetaModel:
    return train(tasks(), SPACE, method=request.param)


def points(model: MetaModel) -> tuple[np.ndarray, np.ndarray]:
    X = model.knobs.encode(GRID)
    y = np.log([500.0 * p["batch"] / (p["batch"] + 3.0) * (1 + (p["mode"] == "a")) for p in GRID])
    return X, y


@pytest.mark.medium
def test_predictions_have_shapes_and_spread(model: MetaModel) -> None:
    X, y = points(model)
    for metric in model.metrics:
        for n in (0, 1, 2, 5, 14):
            fitted = model.of(metric).fit(X[:n], y[:n], columns=model.knobs.columns)
            mean, std = fitted.predict(X)
            assert mean.shape == std.shape == (14,)
            assert np.isfinite(mean).all()
            assert (std > 0).all()
            assert 0.0 <= fitted.credit <= 1.0
            assert fitted.noise >= 0.0


@pytest.mark.medium
def test_repeats_and_absent_knobs_are_taken(model: MetaModel) -> None:
    X, y = points(model)
    Z = X.copy()
    Z[:3, 0] = np.nan
    fitted = model.of("rate").fit(np.repeat(X[:2], 4, axis=0), np.repeat(y[:2], 4), columns=model.knobs.columns)
    assert np.isfinite(fitted.predict(Z)[0]).all()


@pytest.mark.medium
def test_files_bring_models_back(model: MetaModel, tmp_path: Path) -> None:
    path = model.save(tmp_path / "m.npz")
    assert path.stat().st_size < 5_000_000
    again = load(path)
    assert again.head == model.head
    assert again.sha256 == model.sha256
    X, y = points(model)
    for metric in model.metrics:
        ours, theirs = (m.of(metric).fit(X[:4], y[:4], columns=m.knobs.columns).predict(X) for m in (model, again))
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(model.feasibility.views(X), again.feasibility.views(X))


@pytest.mark.medium
@pytest.mark.parametrize("method", ["prior_gp", "fine_tuning"])  # every method draws from the generator that it gets
def test_the_seed_is_honoured(method: str) -> None:
    assert len({train(tasks(), SPACE, method=method, seed=1).sha256 for _ in range(2)}) == 1


@pytest.mark.medium
@each_method
def test_one_task_with_two_rows_is_enough(method: str) -> None:
    model = train(tasks(1, rows=2), SPACE, method=method)
    X, y = points(model)
    assert np.isfinite(model.of("rate").fit(X[:3], y[:3], columns=model.knobs.columns).predict(X)[0]).all()


@pytest.mark.parametrize("method", ["prior_gp", "rgpe", "nearest"])
def test_two_points_tell_the_rest(method: str) -> None:
    """Tasks of one shape: a new level, and the curve is known."""
    model = train(tasks(), SPACE, method=method)
    X, y = points(model)
    mean, _ = model.of("rate").fit(X[:2], y[:2], columns=model.knobs.columns).predict(X)
    assert np.abs(mean - y)[:12].max() < 0.35


def test_scales_go_by_what_fits() -> None:
    """The rates are factors of each other; the offsets take both signs."""
    scales = train(tasks(6), SPACE).head["scales"]
    assert scales == {"offset": "linear", "rate": "log"}


def test_more_memory_needs_are_learned() -> None:
    model = train(tasks(), SPACE)
    assert model.feasibility.directions[0] == 1.0
    X = model.knobs.encode(GRID)
    views = model.feasibility.views(X)
    tried, failed = X[8:9], np.array([1.0])  # batch 16 has failed
    chance = model.feasibility.log_chance(X, views, tried, failed, views[:, 8:9])
    assert (chance[8::2] < -1e6).all()
    good = model.feasibility.log_chance(X, views, tried, np.array([0.0]), views[:, 8:9])
    assert (good[:10:2] == 0.0).all()


def test_numbers_are_aligned_in_physical_units() -> None:
    here = fettle.Space(wait=fettle.Float(0.001, 0.1, unit="s"), other=fettle.Int(1, 4, unit="MiB"))
    there = fettle.Space(wait=fettle.Float(0.5, 20.0, unit="ms"), other=fettle.Int(1, 4, unit="items"))
    knobs = Knobs.of(here, [([{"wait": 20.0}], there)])
    X = knobs.encode([{"wait": 10.0, "other": 2}], there)
    assert X[0, 0] == pytest.approx(knobs.encode([{"wait": 0.01}], here)[0, 0])
    assert np.isnan(X[0, 1])  # a size is no number of items
    assert Knobs.from_json(knobs.to_json()) == knobs


def test_ranges_cover_all_tasks() -> None:
    """A batch that the box of the new space lacks keeps its place on the logarithmic scale."""
    space = fettle.Space(batch=fettle.Ordinal([1, 4, 16]))
    X = Knobs.of(space, [([{"batch": 64}], None)]).encode([{"batch": b} for b in (1, 4, 16, 64)])
    np.testing.assert_allclose(X[:, 0], [0.0, 1 / 3, 2 / 3, 1.0])


@pytest.mark.parametrize(
    ("given", "method", "message"),
    [
        ([], "auto", "at least one"),
        (["t"], "auto", "expected a list of fettle.meta.Task"),
        ([Task("m", [({"elsewhere": 1}, {"x": 1.0})])], "auto", "shares no knob"),
        ([Task("m", [({"batch": 1}, {"x": 1.0})])], "auto", "measured twice"),
        (None, "guess", "unknown method"),
    ],
)
def test_wrong_input_is_named(given: list[Task] | None, method: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        train(tasks() if given is None else given, SPACE, method=method)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no model")
    np.savez(tmp_path / "other.npz", a=np.zeros(2))
    for name in ("text.npz", "other.npz", "absent.npz"):
        with pytest.raises(InvalidInput, match="no meta-model"):
            load(tmp_path / name)


def featured(t: int, *, helpful: bool) -> Task:
    """Two families: rates that rise with the batch, and rates that fall; `kind` tells them apart, or does not."""
    rises = t % 2 == 0
    rows = [(p, {"rate": float(p["batch"] if rises else 1.0 / p["batch"]) * (2.0 + t)}) for p in GRID]
    return Task(f"t{t}", rows, features={"kind": 1.0 + 9.0 * (rises if helpful else t // 4), "size": 10.0 + t})


@pytest.mark.parametrize("helpful", [True, False])
def test_features_count_where_they_help(helpful: bool) -> None:
    model = train([featured(t, helpful=helpful) for t in range(8)], SPACE)
    X = model.knobs.encode(GRID)
    nothing = np.empty((0, 2)), np.empty(0)
    plain, told = (
        model.of("rate", features).fit(*nothing, columns=model.knobs.columns).predict(X)[0]
        for features in (None, {"kind": 10.0, "size": 11.0})
    )
    if helpful:
        assert np.corrcoef(told, X[:, 0])[0, 1] > 0.99
        assert np.ptp(told) > 5 * np.ptp(plain)
    else:
        np.testing.assert_allclose(plain - plain.mean(), told - told.mean(), atol=1e-9)


@pytest.mark.parametrize("telling", [True, False])
def test_the_first_trial_knows_how_fast_a_model_is_at_all(telling: bool) -> None:
    """Ten times the work, a tenth of the rate; after one figure the level is that figure's."""
    rng = np.random.default_rng(0)
    flops = 10.0 ** rng.uniform(0.0, 4.0, 12)
    given = [
        Task(f"t{t}", [(p, {"rate": 1e5 / f * (1.0 + p["batch"]) * rng.lognormal(0.0, 0.1)}) for p in GRID],
             features={"flops": f if telling else float(rng.random()), "depth": float(rng.random())})
        for t, f in enumerate(flops)
    ]  # fmt: skip
    model = train(given, SPACE)
    assert model.scale("rate") == "log"
    X, columns = model.knobs.encode(GRID), model.knobs.columns
    truth = np.log(1e5 / 30.0 * (1.0 + np.array([p["batch"] for p in GRID])))
    learned = model.of("rate", {"flops": 30.0, "depth": 0.5})
    mean, std = learned.fit(np.empty((0, 2)), np.empty(0), columns=columns).predict(X)
    if telling:
        assert np.abs(mean - truth).max() < 1.0 and std.max() < 1.5
        far = model.of("rate", {"flops": 1e12, "depth": 0.5}).fit(np.empty((0, 2)), np.empty(0), columns=columns)
        assert far.predict(X)[1].max() > 1.5 * std.max()
    else:
        assert std.min() > 5.0
    other = learned.fit(X[:1], truth[:1] + 3.0, columns=columns).predict(X)[0]
    assert np.abs(other - truth - 3.0).max() < 0.5


def test_a_limit_says_that_some_configurations_hold_it_and_some_do_not() -> None:
    """Latencies that rise with the batch, of tasks a thousand times apart."""
    rng = np.random.default_rng(1)
    given = [
        Task(f"t{t}", [(p, {"p99": level * p["batch"] * rng.lognormal(0.0, 0.1)}) for p in GRID])
        for t, level in enumerate(10.0 ** rng.uniform(-3.0, 0.0, 8))
    ]
    model = train(given, SPACE)
    learned, X, columns = model.of("p99"), model.knobs.encode(GRID), model.knobs.columns
    assert isinstance(learned, PriorGP)
    limit = np.log(500.0)
    chances = []
    for one in (learned, learned.under(limit)):
        mean, std = one.fit(np.empty((0, 2)), np.empty(0), columns=columns).predict(X)
        chances.append(ndtr((limit - mean) / std))
    assert np.ptp(chances[0]) < 0.5
    assert chances[1][0] > 0.8 and chances[1][-1] < 0.2
    truth = np.log([2.0 * p["batch"] for p in GRID])
    for one in (learned, learned.under(limit)):  # a figure says more
        assert np.abs(one.fit(X[:1], truth[:1], columns=columns).predict(X)[0] - truth).max() < 0.5


def test_features_that_lack_a_name_are_left_aside() -> None:
    model = train([featured(t, helpful=True) for t in range(8)], SPACE)
    X = model.knobs.encode(GRID)
    nothing = np.empty((0, 2)), np.empty(0)
    for features in ({"size": 3.0}, {"kind": -1.0, "size": 3.0}):
        fitted = model.of("rate", features).fit(*nothing, columns=model.knobs.columns)
        plain = model.of("rate").fit(*nothing, columns=model.knobs.columns)
        np.testing.assert_array_equal(fitted.predict(X)[0], plain.predict(X)[0])


def of_shapes(shapes: np.ndarray, rng: np.random.Generator) -> list[Task]:
    """Tasks (n, 14 points) in logarithms, of any level."""
    made = []
    for t, shape in enumerate(shapes):
        figures = np.exp(rng.normal(0.0, 1.0) + shape + 0.02 * rng.standard_normal(len(GRID)))
        made.append(Task(f"s{t}", [(params, {"rate": float(f)}) for params, f in zip(GRID, figures, strict=True)]))
    return made


def test_tasks_of_few_kinds_are_told_from_tasks_that_scatter() -> None:
    rng = np.random.default_rng(4)
    kinds, scattered = rng.standard_normal((4, len(GRID))), rng.standard_normal((12, len(GRID)))
    alone = [
        train(of_shapes(shapes, rng), SPACE, method="prior_gp").arrays["0/weights"][-1].sum()
        for shapes in (np.repeat(kinds, 3, axis=0), scattered)
    ]
    assert alone[0] > 0.6  # of 0.5 before anything is known
    assert alone[1] < 0.4


def test_a_few_figures_tell_which_kind_of_task_it_is() -> None:
    rng = np.random.default_rng(5)
    kinds = rng.standard_normal((6, len(GRID)))
    model = train(of_shapes(np.repeat(kinds, 3, axis=0), rng), SPACE, method="prior_gp")
    X, errors = model.knobs.encode(GRID), []
    for kind in kinds:
        fitted = model.of("rate").fit(X[:4], 3.0 + kind[:4], columns=model.knobs.columns)
        errors.append(np.abs(fitted.predict(X[4:])[0] - 3.0 - kind[4:]).mean())
    assert np.mean(errors) < 0.25  # kinds differ by 1.1; one process about the mean of all is off by 0.45
