"""How losses are shown to a process: there and back, order, densities, and which form is chosen."""

import numpy as np
import pytest

from fettle.algorithms.belief import Fits, Part
from fettle.core.space import Float, Space
from fettle.surrogates.gp import GP
from fettle.surrogates.outputs import PRESSURES, Outputs

RNG = np.random.default_rng(0)
LOSSES = {
    "normal": RNG.standard_normal(30),
    "heavy": np.exp(3 * RNG.standard_normal(30)),
    "negative": -100 - RNG.random(30),
    "tiny": 1e-12 * RNG.random(30),
    "constant": np.full(5, 7.0),
    "half constant": np.r_[np.zeros(20), RNG.random(5)],
    "one": np.array([3.0]),
}
each = pytest.mark.parametrize("name", LOSSES)
both = pytest.mark.parametrize("pressure", PRESSURES)


@both
@each
def test_there_and_back(name: str, pressure: float) -> None:
    losses = LOSSES[name]
    outputs = Outputs.of(losses, pressure)
    assert np.allclose(outputs.inverse(outputs(losses)), losses, rtol=1e-9, atol=1e-9 * np.abs(losses).max())


@both
@each
def test_standard_and_in_order(name: str, pressure: float) -> None:
    losses = np.sort(LOSSES[name])
    shown = Outputs.of(losses, pressure)(losses)
    assert np.isfinite(shown).all() and abs(shown.mean()) < 1e-9
    assert np.all(np.diff(shown)[np.diff(losses) > 0] > 0)
    if np.ptp(losses):
        assert shown.std() == pytest.approx(1)


@both
@each
def test_slope_and_jacobian_agree_with_differences(name: str, pressure: float) -> None:
    losses = LOSSES[name]
    outputs = Outputs.of(losses, pressure)
    step = 1e-6 * (np.ptp(losses) or 1.0)
    off = np.abs(losses - outputs.middle) > 2 * step  # at the median the pressed form has a bend
    numeric = (outputs(losses + step) - outputs(losses - step)) / (2 * step)
    assert np.allclose(outputs.slope(losses)[off], numeric[off], rtol=1e-3)
    assert outputs.log_jacobian(losses) == pytest.approx(np.log(outputs.slope(losses)).sum())


@both
def test_penalties_at_the_end_of_floats_leave_the_rest_readable(pressure: float) -> None:
    losses = np.r_[np.linspace(0, 1, 20), 1e308, -1e308 if pressure else 1e308]
    outputs = Outputs.of(losses[:21], pressure)
    shown = outputs(losses)
    assert np.isfinite(shown).all() and np.isfinite(outputs.slope(losses)).all()
    assert np.isfinite(outputs.inverse(np.array([-1e3, 0.0, 1e3, 1e6]))).all()


def test_the_evidence_presses_heavy_tails_and_leaves_bowls_alone() -> None:
    space = Space(x=Float(0, 1), y=Float(0, 1))
    X = np.random.default_rng(1).random((40, 2))
    part = Part("all", np.arange(40), np.arange(2))
    bowl = np.sin(4 * X[:, 0]) + X[:, 1]
    fits = Fits(GP(), space.columns)
    chosen = {
        name: fits.loss(part, name, X, losses, np.zeros(40)).pressure
        for name, losses in {"bowl": bowl, "heavy": np.exp(4 * bowl)}.items()
    }
    assert chosen == {"bowl": 0.0, "heavy": 1.0}
