"""What a configuration costs, on what it is allotted."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from fettle.core.errors import InvalidInput

GIB = 1 << 30
_HINT = "a price table holds currency, core_hour, gib_hour and gpu_hour (type -> price), all per hour"


@dataclass(frozen=True, slots=True)
class Prices:
    """Price per core-hour, per GiB-hour and per GPU-hour by type."""

    currency: str = "USD"
    core_hour: float = 0.0
    gib_hour: float = 0.0
    gpu_hour: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def load(cls, source: "str | Path | Mapping[str, Any] | None" = None) -> "Prices":
        """A YAML file, a mapping, or None for the table that ships. Raises InvalidInput."""
        if source is None:
            source = yaml.safe_load(files("fettle.data").joinpath("prices.yaml").read_text())
        if isinstance(source, str | Path):
            try:
                source = yaml.safe_load(Path(source).read_text())
            except OSError as error:
                raise InvalidInput(f"cannot read the price table {source}: {error.strerror}", _HINT) from error
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise InvalidInput(f"the price table {source} is not YAML: {error}", _HINT) from error
        if not isinstance(source, Mapping):
            raise InvalidInput(f"expected a price table, got {source!r:.100}", _HINT)
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(source) - set(known)):
            raise InvalidInput(f"unknown prices: {', '.join(map(str, unknown))}", _HINT)
        prices = cls(**source)
        if not isinstance(prices.gpu_hour, Mapping):
            raise InvalidInput(f"gpu_hour: expected type -> price, got {prices.gpu_hour!r:.100}", _HINT)
        for name, value in (("core_hour", prices.core_hour), ("gib_hour", prices.gib_hour), *prices.gpu_hour.items()):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise InvalidInput(f"price of {name}: expected a number of at least 0, got {value!r}", _HINT)
        return prices

    def per_hour(self, *, cores: float, memory_bytes: float, gpu: str | None = None, gpu_share: float = 0.0) -> float:
        """Money per hour for what is allotted."""
        cost = cores * self.core_hour + memory_bytes / GIB * self.gib_hour
        if gpu is not None and gpu_share > 0:
            if gpu not in self.gpu_hour:
                raise InvalidInput(f"no price for GPU type {gpu!r}", f"known: {', '.join(self.gpu_hour)}")
            cost += self.gpu_hour[gpu] * gpu_share
        return cost


def per_million(cost_per_hour: float, throughput_rps: float) -> float:
    """Money per million requests at that throughput; infinite where there is none."""
    return cost_per_hour / (3600 * throughput_rps) * 1e6 if throughput_rps > 0 else math.inf


def rate_for(cost_per_hour: float, cost_per_million: float) -> float:
    """The throughput at which a configuration costs that much per million requests."""
    return cost_per_hour / (3600 * cost_per_million) * 1e6 if cost_per_million > 0 else math.inf
