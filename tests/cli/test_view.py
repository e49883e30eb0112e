"""What is seen while a study runs, and the tables at its end."""

import io
import re
from typing import Any

import pytest
from rich.console import Console

from fettle.cli.printing import print_answer, print_studies, print_study
from fettle.cli.view import LineView, LiveView, View, open_view
from fettle.core.trial import Constraint, Event, Objective, TrialLog
from fettle.report.document import summarise

EXPERIMENT = {
    "name": "digits",
    "problem": {"name": "serve", "model": {"name": "digits-cnn"}, "target": "mosec", "slo_text": "p99=50ms,errors=1%"},
    "objectives": [{"metric": "throughput_rps", "goal": "maximize"}],
    "constraints": [{"metric": "latency_p99_s", "upper": 0.05}],
    "budget": {"seconds": 300, "trials": 10},
    "prices": {"currency": "USD"},
    "baseline": True,
}


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def console(*, terminal: bool, width: int = 100) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        color_system=None,
    )


def written(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def events(name: str = "digits", param: str = "workers", error: str = "killed") -> list[Event]:
    def told(rate: float, p99_s: float) -> dict[str, Any]:
        metrics = {"throughput_rps": rate, "latency_p99_s": p99_s}
        ends = {"throughput_rps": [rate * 0.95, rate * 1.05, 5]}
        return {"state": "complete", "metrics": metrics, "intervals": ends, "timings": {"wall_s": 10.0, "cpu_s": 12.0}}

    failed = {"state": "failed", "metrics": {}, "failure": "oom", "error": error}
    again = {"source": "confirm", "metrics": {"throughput_rps": 405.0}, "passed": True, "wall_s": 8.0}
    steps: list[tuple[str, int, dict[str, Any], float]] = [
        ("created", -1, {**EXPERIMENT, "name": name}, 0.0),
        ("started", 0, {"params": {param: 1}, "note": "defaults"}, 1.0),
        ("told", 0, told(210.0, 0.041), 11.0),
        ("started", 1, {"params": {param: 2}}, 12.0),
        ("told", 1, told(412.0, 0.044), 22.0),
        ("started", 2, {"params": {param: 8}}, 23.0),
        ("told", 2, failed, 30.0),
        ("started", 3, {"params": {param: 4}}, 31.0),
        ("told", 3, {**told(300.0, 0.08)}, 41.0),
        ("started", 4, {"params": {param: 3}}, 42.0),
        ("told", 4, {"state": "stopped", "metrics": {"throughput_rps": 200.0}}, 45.0),
        ("remeasured", 1, again, 60.0),
        ("started", 5, {"params": {param: 5}}, 61.0),
    ]
    return [Event(kind, number, payload, at, seq=i + 1) for i, (kind, number, payload, at) in enumerate(steps)]


def empty_log() -> TrialLog:
    return TrialLog([Objective("throughput_rps", "maximize")], [Constraint("latency_p99_s", upper=0.05)])


def play(view: View, clock: Clock, steps: list[Event]) -> TrialLog:
    log = empty_log()
    for event in steps:
        log.append(event)
        clock.now_s = event.time_s
        view.on_event(log, event)
    return log


def test_plain_lines_tell_each_event_with_its_time() -> None:
    screen, clock = console(terminal=False), Clock()
    view = LineView(screen, clock=clock)
    play(view, clock, events())
    view.on_progress(5, {"phase": "probe", "rate": 100.0})
    view.tick(100.0)
    view.close()
    lines = written(screen).splitlines()
    assert lines[:6] == [
        "[  0:00] study digits begun",
        "[  0:01] trial 0 started (defaults): workers 1",
        "[  0:11] trial 0 complete: throughput 210 [200, 220] req/s, p99 latency 41.0 ms",
        "[  0:11] best so far: trial 0, throughput 210 [200, 220] req/s, p99 latency 41.0 ms",
        "[  0:12] trial 1 started: workers 2",
        "[  0:22] trial 1 complete: throughput 412 [391, 433] req/s, p99 latency 44.0 ms",
    ]
    assert "[  0:30] trial 2 failed (oom): killed" in lines
    assert lines[10].endswith("p99 latency 80.0 ms, infeasible")
    assert "[  0:45] trial 4 stopped early: it can no longer beat the best" in lines
    assert "[  1:00] trial 1 measured again: throughput 405 req/s" in lines


def test_the_live_view_shows_incumbent_trial_and_rate_search() -> None:
    screen, clock = console(terminal=True), Clock()
    view = LiveView(screen, clock=clock)
    play(view, clock, events())
    for rate, ok, p99_s in ((120.0, True, 0.012), (480.0, False, 0.091)):
        view.on_progress(5, {"phase": "probe", "rate": rate})
        view.on_progress(5, {"phase": "probed", "rate": rate, "ok": ok, "p99_s": p99_s})
    view.on_progress(5, {"phase": "probe", "rate": 240.0})
    view.tick(90.0)
    plain = console(terminal=False)
    plain.print(view.render())
    shown = " ".join(written(plain).split())
    assert "1 min 01 s gone, about 48 s left" in shown  # 5 of 10 trials are left, at 9.6 s each, within 90 s
    assert "trial 1: throughput 412 [391, 433] req/s" in shown
    assert "1 running, 3 complete, 1 stopped, 1 failed" in shown
    assert "trial 5 workers 5" in shown
    assert "120 ok 12.0 ms, 480 fails 91.0 ms, probe 240 req/s" in shown
    view.close()
    view.close()


def test_the_live_view_draws_at_most_four_times_a_second() -> None:
    screen, clock = console(terminal=True), Clock()
    view = LiveView(screen, clock=clock)
    log = play(view, clock, events())
    drawn: list[float] = []
    render = view.render

    def counted() -> Any:
        drawn.append(clock.now_s)
        return render()

    view.render = counted  # type: ignore[method-assign]
    for i in range(1000):
        clock.now_s = 100.0 + i * 0.01
        view.on_progress(5, {"phase": "probe", "rate": float(i)})
        view.tick(None)
    assert 35 <= len(drawn) <= 41
    drawn.clear()
    for i in range(1000):
        clock.now_s = 200.0 + i * 0.01
        view.tick(5.0)
    assert len(drawn) <= 12
    view.close()
    drawn.clear()
    view.on_event(log, events()[-1])
    assert drawn == []


def test_the_view_fits_the_stream() -> None:
    assert isinstance(open_view(console(terminal=False)), LineView)
    live = open_view(console(terminal=True))
    assert isinstance(live, LiveView)
    live.close()


@pytest.mark.parametrize("evil", ["\x1b]0;title\x07\x1b[2J", "[bold red]x[/]", "[/]", ":smile:", "a\nb\rc", "\u202ex"])
def test_hostile_text_reaches_no_terminal(evil: str) -> None:
    steps = events(evil, evil, evil)
    screen, clock = console(terminal=False), Clock()
    lines = LineView(screen, clock=clock)
    log = play(lines, clock, steps)
    live_screen = console(terminal=False)
    live = LiveView(live_screen, clock=clock)
    play(live, clock, steps)
    live.on_progress(5, {"phase": evil, "rate": evil, "ok": True, "p99_s": evil})
    live_screen.print(live.render())
    live.close()
    answer = console(terminal=False)
    summary = summarise(log, 1, (1,), evil, {evil: evil})
    print_answer(summary, answer)
    print_study(summary, answer)
    listed = {"name": evil, "state": "open", "problem": evil, "trials": {"complete": 1}, "best": {"number": 1}}
    print_studies([listed], answer)
    for text in map(written, (screen, live_screen, answer)):
        assert re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text) == []
    if evil.startswith(("[", ":")):
        assert evil in written(screen)
        assert evil in written(answer)


def test_the_answer_has_winner_defaults_gain_and_cost() -> None:
    log = empty_log()
    for event in events():
        log.append(event)
    screen = console(terminal=False, width=140)
    print_answer(summarise(log, 1, (1,), "best of 3", {"report": "report.html"}), screen)
    text = written(screen)
    assert text.startswith("digits-cnn holds 405")
    assert "Winner (trial 1, measured again)" in text
    assert "Defaults (trial 0)" in text
    assert re.search(r"^gain +1\.93x the throughput", text, re.M)
    assert re.search(r"^search +\d.*1 running, 3 complete, 1 stopped, 1 failed", text, re.M)
    assert re.search(r"^report +report\.html", text, re.M)


def test_show_and_list() -> None:
    log = empty_log()
    for event in events():
        log.append(event)
    screen = console(terminal=False, width=140)
    print_study(summarise(log, 1, (1,), "", {}), screen)
    text = written(screen)
    assert re.search(r"^ +0 +complete +defaults .*210 req/s.*workers 1|^0 +complete.*210 req/s.*workers 1", text, re.M)
    assert "failed: oom" in text
    assert "infeasible" in text
    screen = console(terminal=False)
    print_studies([], screen)
    assert written(screen) == "no studies yet\n"
    listed = {"name": "s", "state": "open", "problem": "serve", "trials": {"complete": 2}, "best": {"number": 1}}
    print_studies([listed, {**listed, "best": None}], screen)
    assert "2 complete" in written(screen)
    assert "trial 1" in written(screen)
