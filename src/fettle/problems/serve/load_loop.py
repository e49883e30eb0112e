"""The event loop of the load generator: sends what is due, collects answers, bounds everything in time."""

import math
import select
import selectors
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from fettle.problems.serve.http import Connection, ResponseError

MAX_CONNECTIONS = 1024
_TICK_S = 0.02  # time-outs and backlog are looked at so often
_BACKLOG_S = 0.4  # a backlog over its limit for so long is no burst
_RETRY_S = 0.02  # after a refused connection
_MAX_KEPT_BYTES = 64 * 1024 * 1024
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_clock = time.perf_counter


@dataclass(slots=True)
class Plan:
    """One probe: what is to be sent, and what came of it. Times in seconds from its start, by ticket.

    due: when each request is to be sent (grows in a closed loop); done: when its answer was complete, NaN
    if it never was; late: how much later than due the loop looked at it; tick_late: the same for its
    regular ticks. sent_n of them were taken off the schedule, unsent_n were due when time ran out.
    kept: (ticket, request index, body) of the answers to check.
    """

    due: list[float]
    seconds: float
    drain_s: float
    concurrency: int = 0  # 0: open loop
    backlog_limit: float = math.inf
    keep_first: int = 0
    keep_every: int = 1
    keep_most: int = 0
    first_request: int = 0
    done: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    tick_late: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    kept: list[tuple[int, int, bytes]] = field(default_factory=list)
    kept_bytes: int = 0
    good_n: int = 0
    sent_n: int = 0
    unsent_n: int = 0
    window_s: float = 0.0
    received_bytes: int = 0
    oversaturated: bool = False


class Loop:
    """Connections to one server and the loop that drives them."""

    def __init__(self, address: tuple[str, int], payloads: list[bytes], connections: int, timeout_s: float) -> None:
        self._address = address
        self._payloads = payloads
        self._connections = connections
        self._timeout_s = timeout_s
        self._selector = selectors.DefaultSelector()
        self._idle: deque[Connection] = deque()
        self._all: dict[int, Connection] = {}
        self._waiting: deque[int] = deque()  # tickets that are due and have no connection
        self._busy: dict[int, float] = {}  # fd -> when its request was sent
        self._retried: set[int] = set()
        self._plan = Plan([], 0.0, 0.0)
        self._start = 0.0
        self._refused_until = 0.0

    def run(self, plan: Plan) -> None:
        self._plan = plan
        self._retried.clear()
        while len(self._all) < max(1, plan.concurrency or self._connections) and self._connect():
            pass
        self._refused_until = 0.0
        self._start = _clock()
        try:
            self._drive(plan)
        finally:
            self._abandon(plan)

    def close(self) -> None:
        for connection in list(self._all.values()):
            self._drop(connection)

    # the loop

    def _drive(self, plan: Plan) -> None:
        due, n, position = plan.due, len(plan.due), 0
        stop_s, end_s, tick, over_since = plan.seconds, plan.seconds + plan.drain_s, 0.0, math.inf
        for _ in range(plan.concurrency):
            self._issue(0.0)
        while True:
            now = _clock() - self._start
            while position < n and due[position] <= now:
                plan.done.append(math.nan)
                plan.late.append(now - due[position])
                self._waiting.append(position)
                position += 1
            if self._waiting:
                self._dispatch()
            if now >= tick:
                plan.tick_late.append(now - tick)
                tick = now + _TICK_S
                self._expire(now)
                backlog = len(self._waiting) + len(self._busy)
                over_since = min(over_since, now) if backlog > plan.backlog_limit else math.inf
                if now - over_since > _BACKLOG_S and now < stop_s:
                    plan.oversaturated, stop_s, end_s, n = True, now, now + plan.drain_s, position
            quiet = not self._busy and (not self._waiting or not self._all)  # all answered, or nobody there
            if now >= end_s or (now >= stop_s and position >= n and quiet):
                break
            wake = due[position] if position < n else stop_s if now < stop_s else end_s
            self._poll(min(wake, tick, end_s) - (_clock() - self._start))
        plan.window_s, plan.unsent_n = stop_s, n - position if n > position else 0
        plan.sent_n = len(plan.done)

    def _poll(self, timeout_s: float) -> None:
        """Waits with the resolution of select (microseconds; epoll has milliseconds) and handles what came."""
        if timeout_s > 0.0:
            fd = self._selector.fileno()
            if fd < 1024:
                select.select([fd], [], [], timeout_s)
            else:
                self._selector.select(timeout_s)
        for key, mask in self._selector.select(0):
            connection: Connection = key.data
            if connection.fd not in self._all or self._all[connection.fd] is not connection:
                continue
            if mask & _WRITE:
                self._resume(connection)
            if mask & _READ and connection.fd in self._all:
                self._readable(connection)

    def _issue(self, now: float) -> None:
        """Closed loop: one more request, due now."""
        plan = self._plan
        self._waiting.append(len(plan.due))
        plan.due.append(now)
        plan.done.append(math.nan)
        plan.late.append(0.0)

    def _dispatch(self) -> None:
        """Gives waiting requests to idle connections, and opens more while it may."""
        waiting = self._waiting
        while waiting:
            if waiting[0] in self._retried and len(self._all) < MAX_CONNECTIONS:
                if not self._connect():  # a second try on another used connection could meet the same end
                    return
                self._send(self._idle.pop(), waiting.popleft())
                continue
            if not self._idle and (len(self._all) >= MAX_CONNECTIONS or not self._connect()):
                return
            self._send(self._idle.popleft(), waiting.popleft())

    def _send(self, connection: Connection, ticket: int) -> None:
        connection.ticket = ticket
        self._busy[connection.fd] = _clock()
        payloads = self._payloads
        try:
            if not connection.send(payloads[(self._plan.first_request + ticket) % len(payloads)]):
                self._selector.modify(connection.fd, _READ | _WRITE, connection)
        except OSError as error:
            self._failed(connection, "connect" if isinstance(error, ConnectionRefusedError) else "reset")

    def _resume(self, connection: Connection) -> None:
        try:
            if connection.resume():
                self._selector.modify(connection.fd, _READ, connection)
        except OSError:
            self._failed(connection, "reset" if connection.served else "connect")

    def _readable(self, connection: Connection) -> None:
        kind = ""
        try:
            complete, received = connection.receive()
        except OSError as error:
            kind = "connect" if isinstance(error, ConnectionRefusedError) else "reset"
        except ResponseError:
            kind = "bad_response"
        else:
            self._plan.received_bytes += max(0, received)
            if connection.ticket < 0:  # closed, or talking, while idle
                kind = "closed" if received else ""
            elif complete:
                self._complete(connection)
            elif received < 0:
                kind = "closed"
        if kind:
            self._failed(connection, kind)

    # ends of requests

    def _complete(self, connection: Connection) -> None:
        plan, ticket, response = self._plan, connection.ticket, connection.response
        now = _clock() - self._start
        del self._busy[connection.fd]
        connection.ticket = -1
        connection.served += 1
        if response.status != 200:
            plan.errors[f"http_{response.status}"] += 1
        elif not response.body:
            plan.errors["empty_body"] += 1
        else:
            plan.done[ticket] = now
            self._keep(ticket, response.body)
        if response.keep_alive:
            self._idle.append(connection)
        else:
            self._drop(connection)
        self._next(now)

    def _keep(self, ticket: int, body: bytes) -> None:
        """Every k-th body is put aside, to be checked after the probe."""
        plan = self._plan
        index, plan.good_n = plan.good_n, plan.good_n + 1
        if index >= plan.keep_first and index % plan.keep_every:
            return
        if len(plan.kept) < plan.keep_most and plan.kept_bytes + len(body) <= _MAX_KEPT_BYTES:
            plan.kept_bytes += len(body)
            plan.kept.append((ticket, (plan.first_request + ticket) % len(self._payloads), body))

    def _failed(self, connection: Connection, kind: str) -> None:
        """A request ends without an answer. One that a server closed unread on a used connection is sent once more."""
        ticket = connection.ticket
        fresh = connection.served == 0 or connection.response.started or kind not in ("reset", "closed")
        self._drop(connection)
        if ticket < 0:
            return
        if not fresh and ticket not in self._retried:
            self._retried.add(ticket)
            self._waiting.appendleft(ticket)
            return
        self._plan.errors[kind] += 1
        self._next(_clock() - self._start, failed=True)

    def _next(self, now: float, failed: bool = False) -> None:
        if self._plan.concurrency and now < self._plan.seconds:
            if failed:  # a dead server must not turn the closed loop into a busy loop
                self._refused_until = max(self._refused_until, _clock() + _RETRY_S)
            self._issue(now)
            if not failed:
                self._dispatch()

    def _expire(self, now: float) -> None:
        """Requests that took longer than the time-out, under way or still waiting for a connection."""
        limit = _clock() - self._timeout_s
        for fd in [fd for fd, sent in self._busy.items() if sent < limit]:
            connection = self._all[fd]
            self._failed(connection, "stalled" if connection.response.started else "timeout")
        plan = self._plan
        while self._waiting and plan.due[self._waiting[0]] < now - self._timeout_s:
            self._waiting.popleft()
            plan.errors["connect" if not self._all else "timeout"] += 1

    def _abandon(self, plan: Plan) -> None:
        """What is still open when the time is up: counted, and its connection closed."""
        for fd in list(self._busy):
            connection = self._all[fd]
            plan.errors["stalled" if connection.response.started else "unfinished"] += 1
            connection.ticket = -1
            self._drop(connection)
        if self._waiting:
            plan.errors["unfinished" if self._all else "connect"] += len(self._waiting)
            self._waiting.clear()

    # connections

    def _connect(self) -> bool:
        if _clock() < self._refused_until:
            return False
        try:
            connection = Connection(self._address)
        except OSError:
            self._refused_until = _clock() + _RETRY_S
            return False
        self._all[connection.fd] = connection
        self._selector.register(connection.fd, _READ, connection)
        self._idle.append(connection)
        return True

    def _drop(self, connection: Connection) -> None:
        if self._all.pop(connection.fd, None) is None:
            return
        self._busy.pop(connection.fd, None)
        if connection.ticket < 0 and connection in self._idle:
            self._idle.remove(connection)
        self._selector.unregister(connection.fd)
        connection.close()
