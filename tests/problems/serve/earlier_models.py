"""A model that was measured, made by the roofline: what tests of earlier measurements share."""

import numpy as np

from fettle.problems.serve.collect.grid import shared_space
from fettle.problems.serve.collect.rows import Measurements
from fettle.problems.serve.roofline import roofline

PROBE = {
    "cores": 2.0,
    "flops_fp32_1": 1e11,
    "flops_fp32_all": 1.8e11,
    "ops_int8_1": 4e11,
    "ops_int8_all": 7e11,
    "bandwidth_1": 1e10,
    "bandwidth_all": 1.4e10,
}
FEATURES = {"flops": 2e9, "weight_bytes": 5e7, "activation_bytes": 2e7, "operators": 100.0, "share_conv": 1.0}
SPACE = shared_space(2)
CONTEXT = {"probe": PROBE, "fingerprint": {"isa": ["avx2"]}}


def measured(name: str = "other", n: int = 270, **features: float) -> Measurements:
    """n points of a model that the roofline is exact for, but for a factor."""
    own = FEATURES | features
    predict = roofline(own, PROBE)
    points = list(SPACE.enumerate())
    some = [points[i] for i in np.random.default_rng(0).permutation(len(points))[:n].tolist()]
    rows = [(params, {key: 0.8 * value for key, value in predict(params).items()}) for params in some]
    return Measurements(name, tuple(rows), SPACE, own, CONTEXT)
