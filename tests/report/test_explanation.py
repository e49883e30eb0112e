"""What explains a study, as a document, in words and as charts."""

import json
import re
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

from fettle.core.space import Categorical, Float, Space
from fettle.report.document import summarise
from fettle.report.explanation import ended, explanation
from fettle.report.html import render
from fettle.report.summary import Summary

from . import studies
from .test_html import HOSTILE, Page


def journal_of(n: int, loss: Callable[[int, dict[str, Any]], float], **record: Any) -> studies.Journal:
    """n trials of x and c."""
    space = record.pop("space", Space(x=Float(0, 1), c=Categorical(["p", "q"])))
    form = {"name": "s", "space": space.to_json(), "objectives": [{"metric": "loss", "goal": "minimize"}]}
    journal = studies.Journal({**form, "constraints": [], **record})
    for i, params in enumerate(space.sample(n, studies.np.random.default_rng(2))):
        journal.trial(params, {"state": "complete", "metrics": {"loss": loss(i, params)}})
    return journal


def rising(i: int, params: dict[str, Any]) -> float:
    return float(params["x"] ** 2)


def test_a_model_of_forty_trials() -> None:
    found = explanation(studies.modelled()[0].log, {"lr": 0.01, "layers": 3, "kind": "plain"})
    schema = json.loads(files("fettle.schemas").joinpath("explain.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(found)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    (goal,) = found["objectives"]
    assert goal["parameters"][0]["name"] == "lr"
    assert next(p for p in goal["parameters"] if p["name"] == "kind.wide.width")["active"] == 0.5
    assert (goal["curves"][0]["name"], goal["curves"][0]["log"]) == ("lr", True)
    assert found["ended"] == "all 42 trials of its budget were started"
    said = " ".join(found["findings"])
    for words in ("lr explains 9", "exists in 50 % of the space", "could still be gained", "would give loss 0.30"):
        assert words in said


def test_noise_and_constants_are_explained_by_nothing() -> None:
    rng = studies.np.random.default_rng(3)
    noise = explanation(journal_of(30, lambda i, params: float(rng.standard_normal())).log)
    constant = explanation(journal_of(30, lambda i, params: 2.0).log)
    few = explanation(journal_of(3, rising).log)
    for found, verdict, words in (
        (noise, "unexplained", "Nothing explains loss"),
        (constant, "constant", "All 30 trials have the same loss"),
        (few, "too few", "Nothing can be said of loss"),
    ):
        (goal,) = found["objectives"]
        assert (goal["verdict"], goal["parameters"], goal["curves"]) == (verdict, [], [])
        assert found["regret"] is None
        assert words in found["findings"][0]


def test_why_a_search_ended() -> None:
    space = Space(x=Float(0, 1))
    by_rule = journal_of(20, rising, space=space, budget={"seconds": 60.0, "trials": 50, "stop_regret": 0.5}).log
    assert ended(by_rule) == "less than 0.5 of loss could still be gained"
    assert ended(journal_of(20, rising, budget={"seconds": 60.0, "trials": 50, "stop_regret": 1e-9}).log) == ""
    assert ended(journal_of(5, rising, budget={"trials": 5}).log) == "all 5 trials of its budget were started"
    assert ended(journal_of(5, rising).log) == ""
    small = Space(c=Categorical(["p"]))
    assert "all 1 configurations" in ended(journal_of(2, lambda i, p: 1.0, space=small, budget={"trials": 9}).log)
    assert ended(studies.serve()[0].log) == "its time of 5 min was used up"
    assert ended(journal_of(5, rising, budget="x").log) == ""


def test_the_section_of_the_page(summary_of: Callable[[str], Summary], explained_of: Callable[[str], Any]) -> None:
    page = render(summary_of("modelled"), explained_of("modelled"))
    found = Page(page)
    assert "influence" in {attrs.get("id") for tag, attrs in found.elements if tag == "section"}
    assert "It ended because all 42 trials" in found.text
    drawings = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len([d for d in drawings if 'class="band"' in d]) == 3
    for drawing in drawings:
        assert re.match(r"<svg[^>]*role=\"img\"[^>]*><title>[^<]+</title><desc>[^<]+</desc>", drawing)
        assert "nan" not in drawing
    for name in ("empty", "function"):
        assert 'id="influence"' not in render(summary_of(name), explained_of(name))
    few = journal_of(3, rising).log
    assert 'id="influence"' not in render(summarise(few, 0, (0,), "", {}), explanation(few))


@pytest.mark.parametrize("evil", HOSTILE)
def test_hostile_names_stay_text(evil: str) -> None:
    name = evil.replace(".", " ")
    space = Space({name: Float(0, 1), "other": Float(0, 1)})
    journal = journal_of(12, lambda i, p: p[name] + 0.5 * p["other"], space=space)
    summary = summarise(journal.log, 0, (0,), "", {})
    plain, made = Page(render(summary)), Page(render(summary, explanation(journal.log)))
    assert [k for _, attrs in made.elements for k in attrs if k.startswith("on")] == []
    assert made.scripts == plain.scripts
    added = {tag for tag, _ in made.elements} - {tag for tag, _ in plain.elements}
    assert added <= {"h3", "ul", "li", "rect", "line", "polygon", "polyline"}
