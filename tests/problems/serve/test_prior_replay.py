"""The measurements that ship, on a table of real servings of a model that is not among them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))
import serve_table

SEEDS = 6


def regrets(name: str) -> np.ndarray:
    """(seeds, trials): over the cheapest serving."""
    table = json.loads(serve_table.table_of(None).read_text())
    costs = [row["metrics"]["cost_per_million"] for row in table["rows"] if row["state"] == "complete"]
    found = [serve_table.replayed(table, serve_table.settings_of(name, None, seed), seed) for seed in range(SEEDS)]
    result: np.ndarray = np.minimum(np.array(found), max(costs)) / min(costs) - 1.0
    return result


@pytest.mark.medium
def test_other_models_lead_to_the_cheapest_serving() -> None:
    prior, plain = regrets("prior"), regrets("auto")
    assert np.median(prior[:, 11]) < 0.05, "within 5 % after twelve trials"
    assert (prior[:, :24].mean(axis=1) < plain[:, :24].mean(axis=1)).all(), "every seed is ahead: p = 1/64"
    assert prior[:, 1].mean() < 0.5 * plain[:, 2].mean(), "the first proposal is worth two of a search from nothing"
