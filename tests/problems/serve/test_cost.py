import math
from pathlib import Path
from typing import Any

import pytest

from fettle.core.errors import InvalidInput
from fettle.problems.serve.cost import GIB, Prices, per_million, rate_for


def test_what_is_allotted_is_paid_for() -> None:
    prices = Prices("EUR", core_hour=0.04, gib_hour=0.005, gpu_hour={"a100": 2.0})
    assert prices.per_hour(cores=2, memory_bytes=4 * GIB) == pytest.approx(0.1)
    assert prices.per_hour(cores=2, memory_bytes=0, gpu="a100", gpu_share=0.5) == pytest.approx(1.08)
    with pytest.raises(InvalidInput, match="h100"):
        prices.per_hour(cores=1, memory_bytes=0, gpu="h100", gpu_share=1.0)


def test_cost_per_million_and_the_rate_for_it_are_inverse() -> None:
    assert per_million(0.36, 100.0) == pytest.approx(1.0)
    assert rate_for(0.36, 1.0) == pytest.approx(100.0)
    assert per_million(0.36, 0.0) == math.inf
    assert rate_for(0.36, 0.0) == math.inf


def test_the_table_that_ships() -> None:
    shipped = Prices.load()
    assert shipped.core_hour > 0
    assert shipped.gib_hour > 0
    assert shipped.currency


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("currency: CHF\ncore_hour: 1\ngpu_hour: {l4: 0.7}\n")
    assert Prices.load(file) == Prices("CHF", 1, 0.0, {"l4": 0.7})
    assert Prices.load({"core_hour": 0}).per_hour(cores=8, memory_bytes=GIB) == 0.0


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("core_hour: -1", "core_hour"),
        ("core_hour: .nan", "core_hour"),
        ("core_hour: .inf", "core_hour"),
        ("core_hour: true", "core_hour"),
        ("core_hour: dear", "core_hour"),
        ("gpu_hour: 3", "gpu_hour"),
        ("gpu_hour: {a100: free}", "a100"),
        ("hour: 3", "unknown prices"),
        ("- 3", "price table"),
        ("a: [", "not YAML"),
        ("!!python/object/apply:os.system ['touch hacked']", "not YAML"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, text: str, word: str) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=word):
        Prices.load(file)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("source", ["missing.yaml", 5, [1]])
def test_no_table_at_all(source: Any) -> None:
    with pytest.raises(InvalidInput):
        Prices.load(source)
