import math

import pytest

from fettle.core.errors import InvalidInput
from fettle.core.serving import Machine
from fettle.problems.runtimes.probe import machine_features


def test_a_probe_measures_speed_and_bandwidth() -> None:
    found = machine_features(Machine((0, 1), 4 << 30, {"isa": ["avx512f", "avx2"]}), seconds=0.3, seed=1)
    measured = {f"{name}_{how}" for name in ("flops_fp32", "ops_int8", "bandwidth") for how in ("1", "all")}
    assert set(found) == measured | {"cores", "memory_bytes", "avx512", "int8_dot"}
    assert all(math.isfinite(found[name]) and found[name] > 0 for name in measured)
    assert (found["avx512"], found["int8_dot"]) == (1.0, 0.0)
    assert (found["cores"], found["memory_bytes"]) == (2.0, float(4 << 30))
    assert found["flops_fp32_1"] > 1e8  # any processor that runs this
    assert found["bandwidth_1"] > 1e8


def test_it_takes_time() -> None:
    with pytest.raises(InvalidInput, match="positive seconds"):
        machine_features(Machine((0,), 1 << 30), seconds=0.0)
