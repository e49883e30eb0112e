"""Where curves turn, what was expected of trials, who proposed them, and how that is shown."""

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import jsonschema
import numpy as np
import pytest

from fettle.core.space import Categorical, Int, Space
from fettle.core.trial import Objective
from fettle.report.explanation import explanation
from fettle.report.foretold import chart, foretold, table
from fettle.report.html import render
from fettle.report.knees import knees
from fettle.report.origins import origins
from fettle.report.summary import Summary
from fettle.report.why import groups, reasons, section
from fettle.surrogates.response import Figures, Response, trials_in

from . import studies
from .test_html import Page

WIDE = Space(workers=Int(1, 6), threads=Int(1, 6), kind=Categorical(["p", "q"]), where=["workers + threads <= 9"])


def log_in(space: Space, rate: Callable[[dict[str, Any]], float], n: int, *, noise: float = 0.0) -> studies.Journal:
    goals = [{"metric": "throughput_rps", "goal": "maximize"}]
    journal = studies.Journal({"name": "k", "space": space.to_json(), "objectives": goals, "constraints": []})
    rng = np.random.default_rng(5)
    for params in space.sample(n, rng):
        told = {"throughput_rps": rate(params) * (1 + noise * float(rng.standard_normal()))}
        journal.trial(params, {"state": "complete", "metrics": told})
    return journal


def turns(journal: studies.Journal, space: Space, best: dict[str, Any]) -> dict[str, dict[str, Any]]:
    goal = Objective("throughput_rps", "maximize")
    response = Response.of(Figures.of(trials_in(journal.log, space), space, goal), space.columns)
    return {row["name"]: row for row in knees(response, space, goal, best)}


def saturating(params: dict[str, Any]) -> float:
    """Workers help up to 3, threads always."""
    return float(100.0 * min(params["workers"], 3) * params["threads"] ** 0.5)


def test_a_curve_that_turns_and_one_that_rises() -> None:
    found = turns(log_in(WIDE, saturating, 40, noise=0.003), WIDE, {"workers": 3, "threads": 3, "kind": "p"})
    workers, threads = found["workers"], found["threads"]
    assert list(found) == ["workers", "threads"]
    assert (workers["verdict"], workers["value"], workers["next"]) == ("turns", 3, 4)
    assert workers["gain"]["low"] <= 0.0 <= workers["gain"]["high"] + 0.01
    assert workers["text"].startswith("Beyond 3 workers a further one ")
    assert (threads["verdict"], threads["next"], threads["ends"]) == ("rises", 6, True)
    assert "still gains at 6" in threads["text"] and "widen it" in threads["text"]
    held = turns(log_in(WIDE, saturating, 40, noise=0.003), WIDE, {"workers": 4, "threads": 3, "kind": "p"})
    assert held["threads"]["next"] == 5 and not held["threads"]["ends"]
    assert "the most that the other settings allow" in held["threads"]["text"]


def test_few_or_noisy_trials_say_so() -> None:
    best = {"workers": 3, "threads": 3, "kind": "p"}
    few = turns(log_in(WIDE, saturating, 3), WIDE, best)
    assert {row["verdict"] for row in few.values()} == {"unknown"} and few["workers"]["gain"] is None
    assert "too few trials to say" in few["workers"]["text"]
    noisy = turns(log_in(WIDE, saturating, 12, noise=0.3), WIDE, best)
    assert not any(row["sure"] for row in noisy.values())
    narrow = Space(workers=Int(1, 4), threads=Int(1, 2), where=["workers * threads <= 4", "threads == 2"])
    fixed = turns(log_in(narrow, saturating, 2), narrow, {"workers": 1, "threads": 2})
    assert fixed["threads"]["verdict"] == "fixed" and "only 2 goes with" in fixed["threads"]["text"]
    assert turns(log_in(WIDE, saturating, 9), WIDE, {"workers": 9, "threads": 9, "kind": "p"}) == {}


def test_expected_against_measured() -> None:
    log = studies.served()[0].log
    (found,) = foretold(log)
    rows = found["trials"]
    assert [row["number"] for row in rows] == list(range(30))
    assert (found["inside"], found["of"]) == (26, 27)
    assert [row["number"] for row in rows if row["inside"] is False] == [3]
    assert [row["number"] for row in rows if row["bound"]] == [8, 17]
    assert "in 26 of 27 trials; of 1 trial nothing was expected; 2 gave only a bound" in found["text"]
    assert [row[-1].text for row in table(found).rows][:4] == ["-", "inside", "inside", "outside"]
    drawn = chart(found)
    assert drawn.count('class="expected"') == 29 and drawn.count("<circle") == 30
    assert foretold(studies.serve()[0].log) == []


def test_a_failed_trial_has_no_figure() -> None:
    journal = log_in(WIDE, saturating, 2)
    failed = {"state": "failed", "failure": "oom", "metrics": {"throughput_rps": 1.0}}
    journal.trial({"workers": 1}, failed, predicted={"throughput_rps": [5.0, 4.0, 6.0]})
    journal.trial({"workers": 1}, failed, predicted={"throughput_rps": [5.0, None, "x"]})
    (found,) = foretold(journal.log)
    assert [row["measured"] for row in found["trials"][2:]] == [None, None]
    assert (found["of"], found["trials"][3]["expected"]) == (0, None)
    assert "No trial with an exact figure" in found["text"]
    assert "nan" not in chart(found)


def test_what_earlier_tasks_contributed() -> None:
    journal, found = studies.served()
    made = origins(journal.log, journal.log.trials[found.best or 0])
    assert made["counts"] == {"defaults": 1, "earlier tasks": 10, "search": 19}
    assert (made["source"], made["tasks"], made["best"]) == ("shipped", ["mlp", "resnet", "text"], "search")
    assert made["credits"][0] == [1, 0.54] and made["credits"][-1] == [10, 0.9]
    said = " ".join(made["findings"])
    assert "A model of 3 tasks that ship with Fettle (mlp, resnet, text) proposed 10 trials" in said
    assert "credit was 54 % at first, 90 % at last" in said and "the plain search proposed 19 more" in said


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"state": "failed", "failure": "oom"}, "Its first proposal, trial 1, failed."),
        ({"state": "stopped", "metrics": {"cost_per_million": 2.0}}, "trial 1, was stopped early"),
        ({"state": "complete", "metrics": {"cost_per_million": 2.0, "latency_p99_s": 0.9}}, "was not feasible"),
        ({"state": "complete", "metrics": {"cost_per_million": 2.0}}, "trial 1, lay 100 % behind the best trial"),
        ({"state": "complete", "metrics": {"cost_per_million": 0.5}}, "trial 1, was already the best"),
    ],
)
def test_the_first_proposal_of_earlier_tasks(told: dict[str, Any], says: str) -> None:
    journal, held = studies.Journal(studies.serve_experiment()), {"latency_p99_s": 0.01, "error_ratio": 0.0}
    for i, one in enumerate([{"state": "complete", "metrics": {"cost_per_million": 1.0}}, told]):
        notes = {"note": "prior_gp of 12 tasks, credit 87%"} if i else {}
        journal.trial({"workers": 1 + i}, {**one, "metrics": {**held, **one.get("metrics", {})}}, **notes)
    assert says in " ".join(origins(journal.log, None)["findings"])


@pytest.mark.parametrize(
    ("prior", "says"),
    [
        (None, "No earlier model took part."),
        ({"tasks": [], "reason": "no task is alike"}, "No earlier model took part: no task is alike."),
        ({"tasks": ["a"], "source": "store"}, "although 1 task of earlier studies here (a) were at hand."),
        ("hostile", "No earlier model took part."),
        ({"tasks": 3, "reason": "\x1b[31m"}, "No earlier model took part: \ufffd[31m."),
    ],
)
def test_without_earlier_tasks(prior: Any, says: str) -> None:
    journal = studies.Journal(studies.serve_experiment("x", **({} if prior is None else {"prior": prior})))
    journal.trial({"workers": 1}, {"state": "complete", "metrics": {}})
    assert says in " ".join(origins(journal.log, journal.log.trials[0])["findings"])


@pytest.mark.parametrize("name", ["served", "modelled"])
def test_the_document(name: str, explained_of: Callable[[str], Any]) -> None:
    found = explained_of(name)
    schema = json.loads(files("fettle.schemas").joinpath("explain.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(found)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    titles = [title for title, _ in groups(found)]
    if name == "served":
        assert found["limits"]["limit"] == "compute" and len(found["unused"]) == 2
        assert titles == ["What limits it", "Where more buys nothing", "What is left unused", "Who proposed it"]
    else:
        assert (found["limits"], found["unused"], found["origins"], found["foretold"]) == (None, [], None, [])
        assert titles == ["Where more buys nothing"]
    assert all(text.endswith(".") for text in reasons(found))


def test_the_closest_trial_is_looked_at_where_nothing_is_feasible() -> None:
    journal = studies.Journal(studies.serve_experiment("tight", 0.002, space=studies.SERVED.to_json()))
    params = {"workers": 1, "threads": 2, "batching": "off", "cores": 2, "precision": "fp32"}
    probes = [studies.probe(0.3, 100.0, 0.008)]
    artifacts = {**studies.artifacts(probes), "feasible": False}
    journal.trial(params, {"state": "complete", **studies.measured(30.0, probes), "artifacts": artifacts})
    found = explanation(journal.log)
    assert found["limits"]["limit"] == "latency" and found["unused"][0]["role"] == "closest"


def test_the_section_of_the_page(summary_of: Callable[[str], Summary], explained_of: Callable[[str], Any]) -> None:
    page = Page(render(summary_of("served"), explained_of("served")))
    assert "why" in {attrs.get("id") for tag, attrs in page.elements if tag == "section"}
    for words in ("What limits it", "is limited by compute", "expected against measured", "in 26 of 27 trials"):
        assert words in page.text
    assert section(None) == {}
    assert 'id="why"' not in render(summary_of("serve"), explained_of("serve"))
