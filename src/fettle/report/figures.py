"""How figures are written: units from the ends of metric names, three significant digits, intervals and bounds."""

import math
from collections.abc import Sequence
from typing import Any

from fettle.report.text import plain

NONE = "-"
MIB = 1 << 20
GIB = 1 << 30
_LABELS = {
    "throughput_rps": "throughput",
    "rate_rps": "offered rate",
    "error_ratio": "errors",
    "rss_bytes": "peak memory",
    "cost_per_hour": "cost per hour",
    "cost_per_million": "cost per million requests",
    "latency_p99_at_rate_s": "p99 latency at the given rate",
}
_SUFFIXES = ("_s", "_bytes", "_ratio", "_rps")


def label(metric: str) -> str:
    """latency_p99_9_s -> 'p99.9 latency'; a name that is not known keeps its words without the unit."""
    if metric in _LABELS:
        return _LABELS[metric]
    if metric.startswith("latency_p") and metric.endswith("_s"):
        return f"{metric[8:-2].replace('_', '.')} latency"
    for suffix in _SUFFIXES:
        metric = metric.removesuffix(suffix)
    return plain(metric.replace("_", " "), limit=60)


def unit(metric: str, value: float, currency: str = "") -> tuple[float, str]:
    """(scale, unit) to write `value` of `metric` with: value * scale is what is printed before the unit."""
    size = abs(value)
    if metric.startswith("cost_per_hour"):
        return 1.0, f"{currency}/h".strip()
    if metric.startswith("cost") or metric == "money":
        return 1.0, currency
    if metric.endswith("_rps"):
        return 1.0, "req/s"
    if metric.endswith("_ratio"):
        return 100.0, "%"
    if metric.endswith("_bytes"):
        return (1 / GIB, "GiB") if size >= 4 * GIB else (1 / MIB, "MiB")
    if metric.endswith("_s"):
        if size >= 1.0 or size == 0.0:
            return 1.0, "s"
        return (1e3, "ms") if size >= 0.9995e-3 else (1e6, "us")
    return 1.0, ""


def number(value: float, decimals: int | None = None) -> str:
    """Three significant digits with thousands separators; scientific where that would be long."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if not math.isfinite(value):
        return NONE
    if value == 0.0:
        return "0"
    if abs(value) >= 1e7 or abs(value) < 1e-4:
        return f"{value:.2e}"
    if decimals is None:
        decimals = digits(value)
    return f"{round(value, decimals):,.{max(0, decimals)}f}"


def digits(value: float) -> int:
    """Decimals (negative: powers of ten that are rounded away) that leave three significant digits."""
    if value == 0.0 or not math.isfinite(value):
        return 0
    return 2 - math.floor(math.log10(abs(float(f"{value:.2e}"))))


def figure(metric: str, value: float | None, currency: str = "") -> str:
    """41.2 ms, 412 req/s, 0.12 %."""
    if value is None or not math.isfinite(value):
        return NONE
    scale, name = unit(metric, value, currency)
    return f"{number(value * scale if scale != 1.0 else value)} {name}".strip()


def with_interval(metric: str, value: float | None, ends: Sequence[float | None] | None, currency: str = "") -> str:
    """412 [398, 430] req/s; '>= 412 req/s' where the value is only a bound."""
    if value is None or not math.isfinite(value):
        return NONE
    if not ends:
        return figure(metric, value, currency)
    low, high = (None if end is None or not math.isfinite(end) else end for end in ends[:2])
    if low is None or high is None:
        sign = "" if low is None and high is None else ">= " if high is None else "<= "
        return sign + figure(metric, value, currency)
    scale, name = unit(metric, value, currency)
    shown = value * scale
    decimals = digits(shown) if abs(shown) >= 1e-4 else None
    texts = [number(float(x) * scale, decimals) for x in (value, low, high)]
    return f"{texts[0]} [{texts[1]}, {texts[2]}] {name}".strip()


def duration(seconds: float | None) -> str:
    """42 s, 3 min 20 s, 2 h 05 min."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def exact(metric: str, given: float | None, currency: str = "") -> str:
    """A figure that somebody set, not measured: no zeros that claim precision (50 ms)."""
    if given is None or not math.isfinite(given):
        return NONE
    scale, name = unit(metric, given, currency)
    return f"{given * scale:.6g} {name}".strip()


def setting(name: str, given: Any) -> str:
    """A parameter's value as text, with the unit that its name ends in."""
    if isinstance(given, bool) or given is None:
        return {True: "on", False: "off", None: "none"}[given]
    if isinstance(given, int | float) and name.endswith(_SUFFIXES):
        return exact(name, given)
    if isinstance(given, float):
        return f"{given:.4g}"
    return plain(given, limit=80)
