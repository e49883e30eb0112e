"""What the rows of a meta-dataset say: noise, effects of knobs, and how alike models are. Read by meta_card.py."""

import itertools
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fettle.core.space import Space
from fettle.problems.serve.collect import rows
from fettle.problems.serve.roofline import roofline

METRICS = ("throughput_rps", "latency_p50_s", "latency_p99_s", "rss_bytes")
LIMITS = {"none": float("inf"), "3 x": 3.0, "1.5 x": 1.5}
_SAME = 0.03  # smaller differences count as none
_LEAST_SHARED = 10


def name_of(params: Mapping[str, Any]) -> str:
    return json.dumps(dict(sorted(params.items())))


@dataclass(frozen=True)
class Table:
    """values: model -> point -> metric -> figures of its measurements, in order. throughput, p50, p99: their means."""

    space: Space
    size: int
    values: Mapping[str, Mapping[str, Mapping[str, list[float]]]]

    @classmethod
    def of(cls, found: rows.RowFile) -> "Table":
        space = Space.from_json(found.header["space"])
        values: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(list))
        )
        for line in found.lines:
            if not line.get("failure"):
                for metric in METRICS:
                    values[line["model"]][name_of(line["params"])][metric].append(line["metrics"][metric])
        return cls(space, sum(1 for _ in space.enumerate()), values)

    @property
    def models(self) -> list[str]:
        return list(self.values)

    def means(self, metric: str) -> dict[str, dict[str, float]]:
        return {
            model: {point: float(np.mean(got[metric])) for point, got in points.items()}
            for model, points in self.values.items()
        }

    @property
    def throughput(self) -> dict[str, dict[str, float]]:
        return self.means("throughput_rps")

    def full(self) -> list[str]:
        return [model for model, points in self.values.items() if len(points) >= self.size]


@dataclass(frozen=True)
class Repeats:
    points: int
    least: int
    spread: dict[str, tuple[float, float]]
    curse: float
    covered: float


def repeats(table: Table) -> Repeats | None:
    """covered: within 1.96 spreads of the first, the spread that of all repeats in the median."""
    several = [got for points in table.values.values() for got in points.values() if len(got["throughput_rps"]) > 2]
    if not several:
        return None
    spread = {}
    for metric in METRICS:
        ratios = [float(np.std(got[metric], ddof=1) / np.mean(got[metric])) for got in several]
        spread[metric] = (float(np.median(ratios)), float(np.quantile(ratios, 0.9)))
    curses = []
    for points in table.values.values():
        again = {p: got["throughput_rps"] for p, got in points.items() if len(got["throughput_rps"]) > 2}
        if again:
            best = max(again, key=lambda p: again[p][0])
            curses.append(again[best][0] / float(np.mean(again[best][1:])) - 1.0)
    width = 1.96 * np.sqrt(2.0) * spread["throughput_rps"][0]
    inside = [abs(v / got["throughput_rps"][0] - 1.0) <= width for got in several for v in got["throughput_rps"][1:]]
    least = min(len(got["throughput_rps"]) for got in several)
    return Repeats(len(several), least, spread, float(np.median(curses)), float(np.mean(inside)))


@dataclass(frozen=True)
class Effect:
    """throughput, latency: best over worst value of the knob, all else equal: median, 90th percentile."""

    name: str
    throughput: tuple[float, float]
    latency: tuple[float, float]
    share: float
    idle: float


def knobs(table: Table) -> list[Effect]:
    """The most important first."""
    full, throughput, latency = table.full(), table.throughput, table.means("latency_p50_s")
    effects = []
    for knob in table.space.names if full else ():
        ratios: list[list[float]] = [[], []]
        shares, idle = [], []
        for model in full:
            groups: dict[str, list[str]] = defaultdict(list)
            for point in throughput[model]:
                params = json.loads(point)
                groups[name_of({k: v for k, v in params.items() if k != knob})].append(point)
            for points in groups.values():
                for kept, values in zip(ratios, (throughput[model], latency[model]), strict=True):
                    got = [values[p] for p in points]
                    if len(got) > 1:
                        kept.append(max(got) / min(got))
                idle += [_equal(table, model, a, b) for a, b in itertools.pairwise(points)]
            shares.append(_main_effect(throughput[model], knob))
        both = [(float(np.median(kept)), float(np.quantile(kept, 0.9))) for kept in ratios]
        effects.append(Effect(knob, both[0], both[1], float(np.mean(shares)), float(np.mean(idle))))
    return sorted(effects, key=lambda effect: -effect.throughput[0])


def _main_effect(values: Mapping[str, float], knob: str) -> float:
    """Between-group share of the variance of log throughput."""
    logs = np.log(list(values.values()))
    groups: dict[Any, list[float]] = defaultdict(list)
    for point, value in zip(values, logs, strict=True):
        groups[json.loads(point)[knob]].append(float(value))
    between = sum(len(got) * (np.mean(got) - logs.mean()) ** 2 for got in groups.values())
    return float(between / max(1e-12, ((logs - logs.mean()) ** 2).sum()))


def _equal(table: Table, model: str, a: str, b: str) -> bool:
    points = table.values[model]
    metrics = ("throughput_rps", "latency_p50_s")
    return all(abs(np.log(np.mean(points[a][m]) / np.mean(points[b][m]))) < _SAME for m in metrics)


def distinct(table: Table) -> dict[str, int]:
    """Per fully measured model, points that are left when neighbours (one knob apart) that do not differ are one."""
    found = {}
    for model in table.full():
        points = [json.loads(p) for p in table.values[model]]
        names = list(table.values[model])
        root = list(range(len(points)))

        def top(i: int, root: list[int] = root) -> int:
            while root[i] != i:
                i = root[i]
            return i

        for i, j in itertools.combinations(range(len(points)), 2):
            apart = sum(points[i][k] != points[j][k] for k in points[i])
            if apart == 1 and top(i) != top(j) and _equal(table, model, names[i], names[j]):
                root[top(i)] = top(j)
        found[model] = sum(top(i) == i for i in range(len(points)))
    return found


@dataclass(frozen=True)
class Correlations:
    values: np.ndarray
    most: str
    least: str


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Of distinct figures."""
    ranks = [np.argsort(np.argsort(x)).astype(float) for x in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def correlations(table: Table) -> Correlations | None:
    throughput = table.throughput
    found = {}
    for a, b in itertools.combinations(table.models, 2):
        shared = [p for p in throughput[a] if p in throughput[b]]
        if len(shared) >= _LEAST_SHARED:
            pair = [np.array([throughput[m][p] for p in shared]) for m in (a, b)]
            found[f"{a} and {b}"] = spearman(*pair)
    if not found:
        return None
    most, least = (f"{pair} ({found[pair]:.2f})" for pair in (max(found, key=found.get), min(found, key=found.get)))
    return Correlations(np.array(list(found.values())), most, least)


def static(table: Table) -> dict[str, np.ndarray]:
    """Limit -> regret per model of the point that is best on average over the others and holds the limit for most."""
    throughput, p99 = table.throughput, table.means("latency_p99_s")
    shared = sorted(set.intersection(*(set(points) for points in throughput.values())))
    if not shared:
        return {}
    T = np.array([[throughput[m][p] for p in shared] for m in table.models])
    L = np.array([[p99[m][p] for p in shared] for m in table.models])
    found = {}
    for name, factor in LIMITS.items():
        holds = factor * L.min(axis=1, keepdims=True) >= L
        relative = np.where(holds, T / np.where(holds, T, 0.0).max(axis=1, keepdims=True), 0.0)
        regrets = []
        for i in range(len(T)):
            others = np.delete(relative, i, axis=0)
            worth = np.log(np.maximum(others, 0.01)).mean(axis=0)
            regrets.append(1.0 - relative[i, int(np.argmax(worth))])
        found[name] = np.array(regrets)
    return found


def roofline_correlations(found: rows.RowFile, table: Table) -> dict[str, float]:
    """Rank correlation of the analytic prior with the measured throughput, per model."""
    result = {}
    for model, points in table.throughput.items():
        predict = roofline(found.models[model]["features"], found.header["probe"])
        guess = np.array([predict(json.loads(point))["throughput_rps"] for point in points])
        ties = guess * (1.0 + 1e-9 * np.arange(guess.size))  # equal guesses in the order of the rows
        result[model] = spearman(ties, np.array(list(points.values()))) if guess.size > 2 else float("nan")
    return result
