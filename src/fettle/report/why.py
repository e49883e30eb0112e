"""The reasons of an `explanation`, in the order in which they are read, for the terminal and the page."""

from collections.abc import Mapping
from typing import Any

from fettle.report.figures import label
from fettle.report.foretold import chart, table
from fettle.report.text import sentence

_PARTS = ("What limits it", "Where more buys nothing", "What is left unused", "Who proposed it")


def groups(found: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """(title, sentences) of what there is to say."""
    limits, origins = found["limits"], found["origins"]
    parts = (
        limits["findings"] if limits else [],
        [row["text"] for row in found["knees"]],
        [row["text"] for row in found["unused"]],
        origins["findings"] if origins else [],
    )
    return [(title, list(said)) for title, said in zip(_PARTS, parts, strict=True) if said]


def reasons(found: Mapping[str, Any]) -> list[str]:
    """All sentences, those about what was expected last."""
    return [*(text for _, said in groups(found) for text in said), *(row["text"] for row in found["foretold"])]


def section(found: Mapping[str, Any] | None, currency: str = "") -> dict[str, Any]:
    """What the page shows: groups of sentences, and per objective what was expected; {} where there is nothing."""
    if found is None or not reasons(found):
        return {}
    expected = [
        {
            "title": sentence(label(row["metric"])),
            "text": row["text"],
            "chart": chart(row, currency),
            "table": table(row, currency),
        }
        for row in found["foretold"]
    ]
    return {"groups": groups(found), "expected": expected}
