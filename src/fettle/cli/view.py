"""What is seen while a study runs: a live view on a terminal, plain lines elsewhere. Both write to stderr.

Nothing is drawn but in calls from the study's own loop: no thread wakes up beside a measurement.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from fettle.core.trial import Event, State, Trial, TrialLog
from fettle.prior import said
from fettle.report.figures import duration, figure, label, setting, with_interval
from fettle.report.text import plain, shorten

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

REDRAW_S = 0.25  # at most four times a second
IDLE_REDRAW_S = 1.0  # where only the clock has moved
_ALSO = ("throughput_rps", "latency_p99_s", "cost_per_million")


class View(Protocol):
    """Driven by the loop that runs a study; every call is cheap and none raises on odd content."""

    def on_event(self, log: TrialLog, event: Event) -> None:
        """`event` has just been folded into `log`."""
        ...

    def on_progress(self, number: int, info: Mapping[str, Any]) -> None:
        """What trial `number` does now: {"phase": "starting" | "warm-up" | "probe" | "probed" ..., "rate",
        "p99_s", "ok"}; "ok" is a probe's outcome."""
        ...

    def tick(self, left_s: float | None) -> None:
        """Time has passed; left_s of the budget is left, None where there is no limit in time."""
        ...

    def close(self) -> None:
        """Takes the view away; idempotent."""
        ...


def open_view(console: "Console | None" = None) -> View:
    """The view that suits `console` (default: stderr)."""
    if console is None:
        console = stderr_console()
    return LiveView(console) if console.is_terminal else LineView(console)


def stderr_console() -> "Console":
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


class LineView:
    """One line per event, with the time since the view was opened."""

    def __init__(self, console: "Console", *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._begun_s = clock()
        self._best: int | None = None

    def on_event(self, log: TrialLog, event: Event) -> None:
        if text := describe(log, event):
            self._write(text)
        best = log.incumbent
        if best is not None and best.number != self._best:
            self._best = best.number
            self._write(f"best so far: trial {best.number}, {figures(log, best)}")

    def on_progress(self, number: int, info: Mapping[str, Any]) -> None:
        """Left out: a line per probe would bury the events."""

    def tick(self, left_s: float | None) -> None:
        """Nothing to redraw."""

    def close(self) -> None:
        """Nothing to take away."""

    def _write(self, text: str) -> None:
        from rich.text import Text

        elapsed = int(self._clock() - self._begun_s)
        stamp = f"[{elapsed // 60:3d}:{elapsed % 60:02d}] "
        self._console.print(Text(stamp + text), soft_wrap=True)


@dataclass(slots=True)
class _Current:
    """The rate search of one running trial."""

    phase: str = ""
    rate: float | None = None
    tried: list[tuple[float, bool, float | None]] = field(default_factory=list)  # (rate, ok, p99 in seconds)


class LiveView:
    """A few lines that are drawn again in place."""

    def __init__(self, console: "Console", *, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.live import Live

        self._clock, self._console = clock, console
        self._begun_s = clock()
        self._live: Live | None = Live(console=console, auto_refresh=False, transient=True)
        self._log: TrialLog | None = None
        self._current: dict[int, _Current] = {}
        self._left_s: float | None = None
        self._drawn_s, self._changed = -1e9, False

    def on_event(self, log: TrialLog, event: Event) -> None:
        self._log = log
        if event.kind in ("told", "lost"):
            self._current.pop(event.number, None)
        self._changed = True
        self._draw()

    def on_progress(self, number: int, info: Mapping[str, Any]) -> None:
        current = self._current.setdefault(number, _Current())
        current.phase = plain(info.get("phase", ""), limit=30)
        current.rate = _number(info.get("rate"))
        if info.get("ok") is not None and current.rate is not None:
            current.tried.append((current.rate, bool(info["ok"]), _number(info.get("p99_s"))))
        self._changed = True
        self._draw()

    def tick(self, left_s: float | None) -> None:
        self._left_s = left_s
        self._draw()

    def close(self) -> None:
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def _draw(self) -> None:
        now = self._clock()
        if self._live is None or now - self._drawn_s < (REDRAW_S if self._changed else IDLE_REDRAW_S):
            return
        if not self._live.is_started:
            self._live.start()
        self._drawn_s, self._changed = now, False
        self._live.update(self.render(), refresh=True)

    def render(self) -> "RenderableType":
        """The lines as they stand."""
        from rich.table import Table

        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for title, text in self._lines():
            grid.add_row(title, text)
        return grid

    def _lines(self) -> "list[tuple[str, Text]]":
        from rich.text import Text

        lines = [("time", Text(self._times()))]
        if self._log is None:
            return lines
        log, best = self._log, self._log.incumbent
        lines.append(("best", Text(f"trial {best.number}: {figures(log, best)}" if best else "none yet", style="bold")))
        lines.append(("trials", Text(_counts(log))))
        if known := log.experiment.get("prior"):
            lines.append(("prior", Text(plain(said(known), limit=300))))
        running = [log.trials[n] for n in sorted(log.running)]
        for trial in running[:4]:
            lines.append((f"trial {trial.number}", Text(shorten(parameters(trial), 160))))
            if (current := self._current.get(trial.number)) is not None:
                lines.append(("", _search(current)))
        for number in sorted(set(self._current) - set(log.running))[-1:]:
            lines.append((f"trial {number}", _search(self._current[number], "measured again: ")))
        return lines

    def _times(self) -> str:
        text = f"{duration(self._clock() - self._begun_s)} gone"
        left = [s for s in (self._left_s, _trials_left_s(self._log)) if s is not None]
        return f"{text}, about {duration(max(0.0, min(left)))} left" if left else text


def describe(log: TrialLog, event: Event) -> str:
    """One event in a line; "" for those that tell a reader nothing."""
    if event.kind == "created":
        begun = f"study {plain(event.payload.get('name', ''), limit=80)} begun"
        known = event.payload.get("prior")
        return f"{begun}; {plain(said(known), limit=300)}" if known else begun
    if event.kind not in ("started", "told", "lost", "remeasured") or not 0 <= event.number < len(log.trials):
        return ""
    trial = log.trials[event.number]
    head = f"trial {trial.number}"
    if event.kind == "started":
        note = f" ({plain(trial.note, limit=80)})" if trial.note else ""
        return f"{head} started{note}: {parameters(trial)}"
    if event.kind == "remeasured":
        passed = "" if event.payload.get("passed", True) is not False else ", did not hold its constraints"
        metrics = event.payload.get("metrics") or {}
        shown = [f"{label(m)} {figure(m, _number(metrics[m]), _currency(log))}" for m in _shown(log, metrics)]
        return f"{head} measured again: {', '.join(shown) or 'no figures'}{passed}"
    if trial.state is State.FAILED:
        why = plain(trial.error, limit=300)
        return f"{head} failed ({plain(trial.failure or 'other', limit=40)}){': ' + why if why else ''}"
    if trial.state is State.STOPPED:
        return f"{head} stopped early: it can no longer beat the best"
    infeasible = "" if log.outcome(trial).feasible else ", infeasible"
    return f"{head} {trial.state}: {figures(log, trial)}{infeasible}"


def figures(log: TrialLog, trial: Trial) -> str:
    """The trial's main figures in a line."""
    money = _currency(log)
    shown = _shown(log, trial.metrics)
    parts = [f"{label(m)} {with_interval(m, trial.metrics[m], trial.intervals.get(m), money)}" for m in shown]
    return ", ".join(parts) or "no figures"


def parameters(trial: Trial) -> str:
    """workers 2, threads 1."""
    return (
        ", ".join(f"{plain(name, limit=60)} {setting(name, v)}" for name, v in trial.params.items()) or "no parameters"
    )


def _shown(log: TrialLog, metrics: Mapping[str, Any]) -> list[str]:
    return [m for m in dict.fromkeys((*(o.metric for o in log.objectives), *_ALSO)) if m in metrics]


def _currency(log: TrialLog) -> str:
    prices = log.experiment.get("prices")
    return plain(prices.get("currency") or "", limit=10) if isinstance(prices, Mapping) else ""


def _counts(log: TrialLog) -> str:
    return ", ".join(f"{log.counts[state]} {state}" for state in State if log.counts[state]) or "none"


def _trials_left_s(log: TrialLog | None) -> float | None:
    """From the number of trials that are still allowed, at the mean pace so far."""
    budget = log.experiment.get("budget") if log is not None else None
    allowed = _number(budget.get("trials")) if isinstance(budget, Mapping) else None
    if log is None or allowed is None:
        return None
    done = sum(n for state, n in log.counts.items() if state.finished)
    return None if done == 0 else max(0.0, allowed - done) * log.seconds / done


def _search(current: _Current, prefix: str = "") -> "Text":
    """starting / 120 ok 12 ms, 240 ok 18 ms, 480 too slow 91 ms, now 360 req/s."""
    from rich.text import Text

    text = Text(prefix)
    for rate, ok, p99_s in current.tried[-6:]:
        text.append(f"{rate:.4g} ")
        text.append("ok" if ok else "fails", style="green" if ok else "yellow")
        text.append(f" {figure('p99_s', p99_s)}, " if p99_s is not None else ", ")
    text.append("" if current.phase == "probed" else current.phase or "running")
    if current.rate is not None and current.phase == "probe":
        text.append(f" {current.rate:.4g} req/s")
    return text


def _number(given: Any) -> float | None:
    return float(given) if isinstance(given, int | float) and not isinstance(given, bool) else None
