"""The page in a real browser: nothing on the console, no request, nothing wider than the window."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fettle.report.html import render
from fettle.report.summary import Summary

from . import studies

pytestmark = [pytest.mark.needs("chromium", "playwright"), pytest.mark.medium]
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    import shutil

    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(
    browser: Any,
    tmp_path: Path,
    summary_of: Callable[[str], Summary],
    explained_of: Callable[[str], dict[str, Any] | None],
) -> Iterator[Callable[..., Any]]:
    """Opens a study's report; fails at the end if anything was said or asked for."""
    complaints: list[str] = []
    pages = []

    def show(name: str, width: int, scheme: str = "light") -> Any:
        path = tmp_path / f"{name}.html"
        path.write_text(render(summary_of(name), explained_of(name)), encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: r.url.startswith(("file:", "data:")) or complaints.append(r.url))
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield show
    for page in pages:
        page.close()
    assert complaints == []


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", studies.ALL)
def test_fits_the_window(name: str, width: int, opened: Callable[..., Any]) -> None:
    page = opened(name, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h1").is_visible()
    for section in page.locator("section").all():
        assert section.is_visible()


SEEN = {
    "serve": ["#comparison table", "#tradeoffs svg", "#curves svg", "#knobs svg", "#failures pre", "#facts table"],
    "served": ["#why li", "#why svg .dot", "#why table"],
    "modelled": ["#influence li", "#influence .pair svg", "#influence .curves svg", "#influence .band"],
}


@pytest.mark.parametrize("name", SEEN)
def test_figures_and_tables_are_seen(name: str, opened: Callable[..., Any]) -> None:
    page = opened(name, 1280)
    for selector in SEEN[name]:
        assert page.locator(selector).first.is_visible(), selector
    overlaps = page.evaluate(
        """() => [...document.querySelectorAll('svg')].flatMap((svg) => {
          const texts = [...svg.querySelectorAll('text')].map((t) => [t.textContent, t.getBoundingClientRect()]);
          return texts.flatMap(([a, p], i) => texts.slice(i + 1).filter(([b, q]) =>
            p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 3 && q.top < p.bottom - 3
          ).map(([b]) => `${a} / ${b}`));
        })"""
    )
    assert overlaps == []


def test_a_heading_sorts_by_number(opened: Callable[..., Any]) -> None:
    page = opened("serve", 1280)
    heading = page.locator("#trials th", has_text="throughput")
    column = heading.evaluate("(th) => th.cellIndex")
    read = f"""() => [...document.querySelectorAll('#trials tbody tr')].map((r) => r.cells[{column}].dataset.sort)"""
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    shown = [float(v) for v in page.evaluate(read) if v is not None]
    assert shown == sorted(shown)
    assert len(shown) == 19
    heading.locator("button").click()
    shown = [float(v) for v in page.evaluate(read) if v is not None]
    assert shown == sorted(shown, reverse=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme: str, opened: Callable[..., Any]) -> None:
    """At least 4.5 : 1 for text (WCAG 2.1, 1.4.3)."""
    page = opened("serve", 1280, scheme)
    ratios = page.evaluate(
        """() => {
          const style = getComputedStyle(document.documentElement);
          const light = (name) => {
            const hex = style.getPropertyValue(name).trim().slice(1);
            const c = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255)
              .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
          };
          const inks = ['--ink', '--soft', '--winner', '--defaults', '--limit'];
          return inks.flatMap((a) => ['--page', '--card'].map((b) => {
            const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
            return (x + 0.05) / (y + 0.05);
          }));
        }"""
    )
    assert len(ratios) == 10
    assert min(ratios) >= 4.5
