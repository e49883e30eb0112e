"""Results on stdout, from the same tables that the HTML page is made from."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fettle.report import tables
from fettle.report.figures import setting
from fettle.report.summary import Summary
from fettle.report.text import plain

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 160  # where no terminal tells its own


def stdout_console() -> "Console":
    """A console that interprets nothing in what it prints."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, emoji=False, width=PIPE_WIDTH)


def print_answer(summary: Summary, console: "Console") -> None:
    """The answer: headline, winner beside the defaults, gain, search cost, artefacts."""
    _line(console, summary.headline, bold=True)
    if summary.winner or summary.closest:
        print_table(tables.comparison(summary), console)
    gained = summary.answer.get("gain")
    if gained:
        _line(console, f"gain    {gained['text']}", bold=bool(gained["shown"]))
    if alike := summary.answer.get("gain_at_equal_precision"):
        _line(console, f"        {alike['text']}")
    _line(console, f"search  {tables.cost_line(summary)}")
    if summary.answer["ended"]:
        _line(console, f"ended   because {summary.answer['ended']}")
    for name, path in summary.answer["artifacts"].items():
        _line(console, f"{plain(name, limit=40):7} {plain(path, limit=500)}")


def print_study(summary: Summary, console: "Console") -> None:
    """What `fettle show` prints: what was asked for, every trial, the answer in a sentence."""
    print_table(tables.experiment(summary), console)
    print_trials(summary, console)
    _line(console, summary.headline, bold=True)
    _line(console, f"search  {tables.cost_line(summary)}")


def print_trials(summary: Summary, console: "Console") -> None:
    """All trials; parameters share one column, by short names where these are unique, without those that never vary."""
    table = tables.trials(summary, short=True)
    names = tables.parameters(summary)
    seen = {n: {repr(row.trial.params.get(n)) for row in summary.rows} for n in names}
    kept = len(table.columns) - len(names)
    rows = []
    for row, cells in zip(summary.rows, table.rows, strict=True):
        varied = [(n, v) for n, v in row.trial.params.items() if len(seen[n]) > 1]
        shown = ", ".join(f"{names[n]} {setting(n, v)}" for n, v in varied)
        rows.append((*cells[:kept], tables.Cell(shown)))
    columns = (*table.columns[:kept], ("parameters that vary", False))
    print_table(tables.Table(table.caption, columns, tuple(rows)), console)


def print_studies(found: Sequence[Mapping[str, Any]], console: "Console") -> None:
    """What `fettle list` prints; `found` as under "studies" in its JSON."""
    if found:
        print_table(tables.studies(found), console)
    else:
        _line(console, "no studies yet")


def print_table(table: tables.Table, console: "Console") -> None:
    """A table without markup: text from elsewhere is already plain, and is taken as text only."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    titled = any(title for title, _ in table.columns)
    shown = Table(box=box.SIMPLE_HEAD if titled else None, show_header=titled, pad_edge=False, show_edge=False)
    for title, is_figure in table.columns:
        shown.add_column(Text(plain(title)), justify="right" if is_figure else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(plain(cell.text), style="bold" if cell.strong else "") for cell in row))
    console.print(shown)
    console.print()


def _line(console: "Console", text: str, *, bold: bool = False) -> None:
    from rich.text import Text

    console.print(Text(plain(text), style="bold" if bold else ""), soft_wrap=True)
