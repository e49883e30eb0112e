"""Functions drawn from a process have its mean and its variance."""

import numpy as np

from fettle.core.space import Categorical, Float, Space
from fettle.surrogates.paths import Paths

from .logs import log_of, response_of


def test_draws_have_the_process_mean_and_spread() -> None:
    space = Space(x=Float(0, 1), c=Categorical(["p", "q", "r"]))
    log = log_of(space, lambda p: np.sin(6 * p["x"]) + (p["c"] == "q"), 12, noise=0.1)
    response = response_of(log, space)
    process = response.processes[0]
    Z = space.encode(space.sample(60, np.random.default_rng(5)))
    sets, n = 20, 200  # functions of one set share their frequencies, so several sets are needed
    made = [Paths(process, response.variances, space.columns, n, np.random.default_rng(i))(Z) for i in range(sets)]
    mean, std = process.predict(Z)
    for one in made:
        np.testing.assert_allclose(one[:, 0], mean, atol=1e-8)
    drawn = np.hstack([one[:, 1:] for one in made])
    off = (drawn.mean(axis=1) - mean) / (std / np.sqrt(sets * n))
    assert np.abs(off).max() < 4.5  # 60 points: p < 0.001
    np.testing.assert_allclose(drawn.std(axis=1), std, rtol=0.15)
