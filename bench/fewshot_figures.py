"""What the rows of few-shot search on the project's own measurements say, and the figure of its curves.

Samples to 90 and 95 %: median and 90th percentile over all runs of a method; geometric means over models, of those over
a model's cases, of those over seeds. A hard case is one for which the static policy needs more than three samples.
Tests are over models, their cases and seeds averaged: Wilcoxon's signed-rank test, one-sided, as models are few.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from fewshot_own import within
from scipy.stats import wilcoxon

from fettle.report.scales import Scale, spread
from fettle.report.svg import Frame, drawing, tag, words

OURS, STATIC, AGAINST = "prior_gp", "static", ("fine_tuning", "gp_bo")
DRAWN = {
    "prior_gp": "#1f5fa8", "static": "#4a4a4a", "fine_tuning": "#7a4fa3", "gp_bo": "#b5482a", "tpe": "#2e7d4f",
    "random": "#8a6d1a",
}  # fmt: skip
BANDS = ("prior_gp", "gp_bo", "random")
SHARES, PERCENTS = (90, 95), (1.0, 2.0, 5.0)
_EASY, _FEW_MODELS, _SAME, _DRAWN_N = 3, 5, 0.98, 20
_TIMES, _LEVEL = 3.0, 0.05
Row = dict[str, Any]


def samples(row: Row, share: int) -> int:
    """To that share of the best option; one more than there were, where it was not reached."""
    return int(row[f"to{share}"] or row["n"] + 1)


def curve(row: Row) -> list[float]:
    """Best share after 1 to 20 samples."""
    found = [0.0] * _DRAWN_N
    for n, share in row["t"]:
        found[n - 1 :] = [share] * (_DRAWN_N - n + 1)
    return found


def balanced(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by method: of methods that have all cases, with the seeds that all cases have."""
    cases, by = {row["case"] for row in rows}, dict[str, list[Row]]()
    for row in rows:
        by.setdefault(row["method"], []).append(row)
    whole = {}
    for method, mine in by.items():
        seeds: dict[int, set[str]] = {}
        for row in mine:
            seeds.setdefault(row["seed"], set()).add(row["case"])
        kept = [row for row in mine if seeds[row["seed"]] == cases]
        if kept:
            whole[method] = kept
    return whole


def by_model(rows: Sequence[Row], share: int, cases: set[str]) -> dict[str, float]:
    """Model -> mean logarithm of the samples over its cases, seeds averaged."""
    logs: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["case"] in cases:
            logs.setdefault(row["group"], {}).setdefault(row["case"], []).append(np.log(samples(row, share)))
    return {model: float(np.mean([np.mean(one) for one in of.values()])) for model, of in logs.items()}


def method_row(method: str, rows: Sequence[Row]) -> Row:
    curves = np.array([curve(row) for row in rows])
    sizes = [row["size"] for row in rows]
    at = {p: 1.0 - np.array([c[within(n, p) - 1] for c, n in zip(curves, sizes, strict=True)]) for p in PERCENTS}
    made: Row = {
        "row": "method", "method": method, "runs": len(rows), "seeds": len({row["seed"] for row in rows}),
        "cases": len({row["case"] for row in rows}), "models": len({row["group"] for row in rows}),
        "ms": float(np.mean([row["ms"] for row in rows])),
    }  # fmt: skip
    for share in SHARES:
        costs = [samples(row, share) for row in rows]
        mean = np.mean(list(by_model(rows, share, {row["case"] for row in rows}).values()))
        made[f"to{share}"] = {
            "median": float(np.median(costs)), "q90": float(np.quantile(costs, 0.9)),
            "geometric": float(np.exp(mean)), "most": max(costs),
        }  # fmt: skip
    made["regret_at_percent"] = {f"{p:g}": [float(x) for x in np.quantile(r, (0.5, 0.1, 0.9))] for p, r in at.items()}
    names = (("median", 0.5), ("low", 0.1), ("high", 0.9))
    made["curve"] = {name: [round(float(x), 4) for x in np.quantile(curves, q, axis=0)] for name, q in names}
    return made


def hard_row(whole: dict[str, list[Row]], share: int) -> Row:
    """How many samples the others need of those that ours needs, where the static policy is not enough."""
    hard = {row["case"] for row in whole[STATIC] if samples(row, share) > _EASY}
    models = {row["group"] for row in whole[STATIC] if row["case"] in hard}
    made: Row = {
        "row": "hard", "share": share, "cases": len(hard), "of": len({row["case"] for row in whole[STATIC]}),
        "models": len(models), "static_suffices": len(models) < _FEW_MODELS, "against": {},
    }  # fmt: skip
    ours = by_model(whole.get(OURS, []), share, hard)
    for method in whole:
        theirs = by_model(whole[method], share, hard)
        if method == OURS or not ours or not theirs:
            continue
        gaps = np.array([theirs[model] - ours[model] for model in ours])
        p = float(wilcoxon(gaps, alternative="greater").pvalue) if np.any(gaps) else 1.0
        made["against"][method] = {"ratio": float(np.exp(gaps.mean())), "p": p}
    return made


def bars_row(rows: Sequence[Row], hard: Sequence[Row]) -> Row:
    """The bars that ours is held to: what, figure, bar, whether it holds; None where static suffices."""
    cost = {share: np.array([samples(row, share) for row in rows]) for share in SHARES}
    made = [
        ["median samples to 90 %", float(np.median(cost[90])), 3.0],
        ["median samples to 95 %", float(np.median(cost[95])), 6.0],
        ["90th percentile of samples to 95 %", float(np.quantile(cost[95], 0.9)), 15.0],
    ]
    bars = [[*bar, bar[1] <= bar[2]] for bar in made]
    for row in hard:
        for name in AGAINST:
            if name in row["against"]:
                ratio, p = row["against"][name]["ratio"], row["against"][name]["p"]
                what = f"{name}: times the samples to {row['share']} %, hard cases"
                holds = None if row["static_suffices"] else ratio >= _TIMES and p < _LEVEL
                bars.append([what, ratio, _TIMES, holds])
    return {"row": "bars", "method": OURS, "bars": bars}


def static_row(rows: Sequence[Row]) -> Row:
    """How often the policy's first configuration is as good as the optimum."""
    first = np.array([curve(row)[0] for row in rows])
    return {"row": "static", "cases": len(rows), "within_2_percent": float(np.mean(first >= _SAME))}


def table(rows: Sequence[Row]) -> list[Row]:
    whole = balanced(rows)
    made = [method_row(method, mine) for method, mine in whole.items()]
    if STATIC in whole:
        hard = [hard_row(whole, share) for share in SHARES]
        made += [*hard, static_row(whole[STATIC])]
        made += [bars_row(whole[OURS], hard)] if OURS in whole else []
    sizes = sorted({row["group"]: row["size"] for row in rows}.values())
    made.append({"row": "space", "least": sizes[0], "median": float(np.median(sizes)), "most": sizes[-1]})
    return made


def picture(made: Sequence[Row]) -> str:
    """Best share so far against samples: medians; from the 10th to the 90th percentile for three of them."""
    frame = Frame(Scale(1.0, float(_DRAWN_N), 60.0, 430.0), Scale(0.0, 1.0, 330.0, 40.0))
    curves = {row["method"]: row["curve"] for row in made if row["row"] == "method" and row["method"] in DRAWN}
    size = next(row["median"] for row in made if row["row"] == "space")
    parts = []
    for percent in PERCENTS:
        x = frame.x(float(within(round(size), percent)))
        parts.append(tag("line", x1=x, x2=x, y1=40.0, y2=330.0, stroke="#999", stroke_dasharray="3 3"))
        parts.append(words(f"{percent:g} %", x, 36.0, anchor="middle"))
    for method in (m for m in BANDS if m in curves):
        low, high = curves[method]["low"], curves[method]["high"]
        edge = [*enumerate(low, 1), *reversed(list(enumerate(high, 1)))]
        parts.append(tag("polygon", points=_path(frame, edge), fill=DRAWN[method], opacity="0.12"))
    ends = [frame.y(curve["median"][-1]) + 4 for curve in curves.values()]
    for (method, curve), height in zip(curves.items(), spread(ends, 14.0, 40.0, 340.0), strict=True):
        path = _path(frame, list(enumerate(curve["median"], 1)))
        parts.append(tag("polyline", points=path, fill="none", stroke=DRAWN[method], stroke_width="2"))
        parts.append(tag("text", method, x=436.0, y=height, fill=DRAWN[method], font_size="12"))
    style = tag("style", "text{font:12px sans-serif}.grid{stroke:#ddd}.axis{stroke:#555}")
    about = "; ".join(f"{m}: {c['median'][2]:.0%} after 3, {c['median'][-1]:.0%} after 20" for m, c in curves.items())
    title = words("Share of the best option so far; dashed: 1, 2 and 5 % of the space", 60.0, 14.0)
    grid = frame.grid("samples", "share")
    whole = drawing("Few-shot search", about, style, title, grid, *parts, width=540, height=380)
    return str(whole).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def _path(frame: Frame, points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in (frame.at(float(x), y) for x, y in points))
