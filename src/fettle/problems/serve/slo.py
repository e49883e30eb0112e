"""Service-level objectives: latency limits by percentile, and a limit on the share of failed requests."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from fettle.core.errors import InvalidInput

PERCENTILES: Mapping[str, float] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
METRICS: Mapping[str, str] = {name: f"latency_{name.replace('.', '_')}_s" for name in PERCENTILES}
_UNITS_S = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_HINT = "write it like 'p99=50ms,errors=1%'; percentiles: p50 p90 p95 p99 p99.9; units: us ms s"
_TERM = re.compile(
    r"(?P<name>[A-Za-z][\w.]*)\s*(?:<=|=)\s*(?P<number>[0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(?P<unit>[a-zµ%]*)"
)


@dataclass(frozen=True, slots=True)
class SLO:
    """latency_s: percentile name -> limit in seconds; error_ratio: highest share of failed requests."""

    latency_s: Mapping[str, float] = field(default_factory=dict)
    error_ratio: float = 0.01

    def __post_init__(self) -> None:
        if not self.latency_s:
            raise InvalidInput("an SLO needs at least one latency limit, got none", _HINT)
        for name, limit_s in self.latency_s.items():
            if name not in PERCENTILES:
                raise InvalidInput(f"SLO: expected a percentile out of {' '.join(PERCENTILES)}, got {name!r}", _HINT)
            if not (math.isfinite(limit_s) and limit_s > 0.0):
                raise InvalidInput(f"SLO: the limit of {name} must be a positive time, got {limit_s!r}", _HINT)
        if not 0.0 <= self.error_ratio < 1.0:
            raise InvalidInput(f"SLO: errors must be in [0 %, 100 %), got {self.error_ratio!r}", _HINT)

    @classmethod
    def parse(cls, text: str) -> "SLO":
        """`p99=50ms,errors=1%` -> SLO; raises InvalidInput that names the part that is wrong."""
        limits: dict[str, float] = {}
        errors: float | None = None
        for part in text.split(","):
            term = _TERM.fullmatch(part.strip())
            if term is None:
                raise InvalidInput(f"SLO {text!r}: expected 'name=limit', got {part.strip()!r}", _HINT)
            name, unit = term["name"].lower(), term["unit"]
            try:
                number = float(term["number"])
            except ValueError:
                raise InvalidInput(f"SLO {text!r}: {term['number']!r} is not a number", _HINT) from None
            if name in limits or (name == "errors" and errors is not None):
                raise InvalidInput(f"SLO {text!r}: {name!r} is given twice", _HINT)
            if name == "errors":
                if unit not in ("", "%"):
                    raise InvalidInput(f"SLO {text!r}: errors are a share or per cent, got unit {unit!r}", _HINT)
                errors = number / 100.0 if unit == "%" else number
            elif name not in PERCENTILES:
                raise InvalidInput(f"SLO {text!r}: expected one of {' '.join(PERCENTILES)} errors, got {name!r}", _HINT)
            elif unit not in _UNITS_S:
                raise InvalidInput(f"SLO {text!r}: expected a unit of time (us ms s) after {name}, got {unit!r}", _HINT)
            else:
                limits[name] = number * _UNITS_S[unit]
        return cls(limits) if errors is None else cls(limits, errors)

    def constraints(self) -> dict[str, float]:
        """Metric name -> upper limit, e.g. {"latency_p99_s": 0.05, "error_ratio": 0.01}."""
        return {METRICS[name]: limit for name, limit in self.latency_s.items()} | {"error_ratio": self.error_ratio}

    @property
    def limit_s(self) -> float:
        """The longest latency limit: the time scale on which a probe has to be planned."""
        return max(self.latency_s.values())

    def __str__(self) -> str:
        limits = [f"{name}={_time(limit)}" for name, limit in self.latency_s.items()]
        return ",".join([*limits, f"errors={self.error_ratio * 100:.12g}%"])


def _time(seconds: float) -> str:
    return f"{seconds:.12g}s" if seconds >= 1.0 else f"{seconds * 1e3:.12g}ms"
