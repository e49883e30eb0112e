"""The page is well formed, asks nothing of any network, and hostile text in it stays text."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from fettle.report.document import summarise
from fettle.report.html import render
from fettle.report.summary import Summary

from . import studies

VOID = {"meta", "link", "br", "hr", "img", "input"}
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "{{ 7 * 7 }}{% raw %}",
    "</style></svg></title></pre><svg onload=alert(1)>",
    "\x1b[31mred\x1b]0;title\x07",
    "abc\u202egnp.exe\u2066\x00\x85",
]


class Page(HTMLParser):
    """Elements, text and attributes; fails on tags that do not close."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        else:
            self.text += data


@pytest.mark.parametrize("name", studies.ALL)
def test_well_formed_and_without_any_address(name: str, summary_of: Callable[[str], Summary]) -> None:
    page = render(summary_of(name))
    found = Page(page)
    linked = [(tag, k, v) for tag, attrs in found.elements for k, v in attrs.items() if k in ("href", "src", "action")]
    assert linked == [("link", "href", "data:,")]
    assert re.findall(r"(?:https?:)?//[a-z]|url\(|@import", page) == []
    assert "default-src 'none'" in page


def test_sections_of_a_serve_study(summary_of: Callable[[str], Summary]) -> None:
    found = Page(render(summary_of("serve")))
    ids = {attrs["id"] for tag, attrs in found.elements if tag == "section"}
    assert ids == {"comparison", "operating", "tradeoffs", "curves", "knobs", "failures", "trials", "facts"}
    for word in ("python serve.py --port 8000", "ERROR failed to allocate", "99.8 % (top-1)", "Example CPU", "210 us"):
        assert word in found.text
    assert found.text.count("start_timeout") >= 2


def test_missing_parts_are_left_out(summary_of: Callable[[str], Summary]) -> None:
    sections = {
        name: {a["id"] for tag, a in Page(render(summary_of(name))).elements if tag == "section"}
        for name in studies.ALL
    }
    assert sections["empty"] == {"facts"}
    assert sections["all_failed"] == {"failures", "trials", "facts"}
    assert {"tradeoffs", "curves", "knobs"} <= sections["function"]
    assert "operating" not in sections["infeasible"]


@pytest.mark.parametrize("name", ["serve", "infeasible", "function"])
def test_accessible(name: str, summary_of: Callable[[str], Summary]) -> None:
    page = render(summary_of(name))
    found = Page(page)
    assert next(attrs for tag, attrs in found.elements if tag == "html")["lang"] == "en"
    drawings = re.findall(r"<svg.*?</svg>", page, re.S)
    assert drawings
    for drawing in drawings:
        assert re.match(r"<svg[^>]*role=\"img\"[^>]*><title>[^<]+</title><desc>[^<]+</desc>", drawing)
    assert all("nan" not in drawing and "inf" not in re.sub("infeasible", "", drawing) for drawing in drawings)


def test_the_same_study_gives_the_same_page(summary_of: Callable[[str], Summary]) -> None:
    assert render(summary_of("serve")) == render(summary_of("serve"))


def poisoned(evil: str) -> Summary:
    """A study with the text in every place that comes from elsewhere."""
    record = json.loads(json.dumps(studies.serve_experiment(evil)))
    record["problem"]["model"] = {"name": evil, "variants": {evil: evil}, "hashes": {evil: evil}}
    record["problem"] |= {"target": evil, "slo_text": evil, "slo": {evil: 0.05, "p99": 0.05}}
    record |= {"algorithm": {"name": evil, evil: evil}, "agreement": {evil: {"kind": evil, "value": 0.9}}}
    record |= {"fingerprint": {**studies.FINGERPRINT, evil: evil, "packages": {evil: evil}}, "seed": evil}
    record["prices"]["currency"] = evil
    journal = studies.Journal(record)
    for i in range(6):
        params = {evil: evil, "workers": 1 + i % 3, "mode": [evil, "plain"][i % 2]}
        top, probes = studies.search(100.0 + 9 * i, 0.004)
        told: dict[str, Any] = {"state": "complete", **studies.measured(top, probes)}
        told["artifacts"] = studies.artifacts(probes)
        told["artifacts"]["server"] = {"argv": ["python", evil], "record": {evil: evil}, "start_s": 1.0}
        told["metrics"][evil] = 1.0
        journal.trial(params, told)
    failed = {"state": "failed", "failure": "other", "error": evil, "artifacts": {"log": f"{evil}\n{evil}"}}
    journal.trial({evil: evil}, failed)
    return summarise(journal.log, 5, (5,), evil, {evil: evil})


@pytest.mark.parametrize("evil", HOSTILE)
def test_hostile_text_stays_text(evil: str, summary_of: Callable[[str], Summary]) -> None:
    page = render(poisoned(evil))
    found, clean = Page(page), Page(render(summary_of("serve")))
    assert {tag for tag, _ in found.elements} <= {tag for tag, _ in clean.elements}
    handlers = [k for _, attrs in found.elements for k in attrs if k.startswith("on")]
    assert handlers == []
    assert found.scripts == clean.scripts
    assert re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page) == []
    visible = evil.translate(dict.fromkeys((0, 7, 27, 133, 8238, 8294), "�"))
    assert visible in found.text


def test_artifacts_of_wrong_shape_are_left_out() -> None:
    journal = studies.Journal(studies.serve_experiment(fingerprint=None, prices=None, agreement=[1], budget="x"))
    odd = {
        "probes": [1, {"rate": "x"}, {"rate": 5.0}],
        "usage": 3,
        "noise": [],
        "client": "x",
        "server": None,
        "log": 7,
    }
    for i in range(4):
        metrics = {"cost_per_million": 1.0 + i, "latency_p99_s": 0.01}
        journal.trial({"workers": i}, {"state": "complete", "metrics": metrics, "artifacts": odd})
    Page(render(summarise(journal.log, 0, (0,), "", {})))
