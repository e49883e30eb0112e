import math
from pathlib import Path

import pytest

from fettle.core.errors import InvalidInput
from fettle.core.serving import Machine
from fettle.problems.runtimes.probe import machine_features, remember, remembered


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


def test_a_probe_is_kept_for_each_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here, other = (Machine((0, 1), 4 << 30, {"host": host, "cpu_model": "x"}) for host in ("a", "b"))
    assert remembered(here) == {}
    path = remember(here, {"cores": 2.0, "flops_fp32_1": 1e10})
    assert remembered(here) == {"cores": 2.0, "flops_fp32_1": 1e10} and remembered(other) == {}
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    for broken in ("", "[1]", '{"cores": "two"}', '{"cores": NaN}', "\xff"):
        path.write_text(broken)
        assert remembered(here) == {}
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert remembered(here) == {}
    with pytest.raises(InvalidInput, match="cannot keep the probe"):
        remember(here, {})
