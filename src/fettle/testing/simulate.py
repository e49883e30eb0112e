"""A simulated server in virtual time: the test double behind every claim about the rate search.

One FIFO queue, some workers, batching, any law of service time, stalls, and a speed that drifts. A probe
returns the same Samples as the real generator, and the server's state and clock go on between probes.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from heapq import heapreplace

import numpy as np
from numpy.random import Generator

from fettle.problems.serve.samples import Floats, Samples
from fettle.problems.serve.slo import PERCENTILES, SLO

_STEP_S = 0.05  # grid of the drifting speed
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class ServerLaw:
    """How a simulated server behaves. Times in seconds.

    A batch of k takes (fixed_s + k * item_s) * noise / speed; noise has mean 1 and is "deterministic",
    "exponential" or "lognormal" with sigma. A worker that is free takes up to max_batch requests, once so
    many wait or the oldest has waited max_wait_s. speed(t) = exp(Ornstein-Uhlenbeck of drift_sd, drift_s)
    * (1 - cold * exp(-t / cold_s)) * exp(-fade * t). Stalls come at stall_rate per second and stop all
    workers for stall_s. It dies at death_s.
    """

    workers: int = 1
    item_s: float = 0.01
    fixed_s: float = 0.0
    noise: str = "exponential"
    sigma: float = 1.0
    max_batch: int = 1
    max_wait_s: float = 0.0
    drift_sd: float = 0.0
    drift_s: float = 1.0
    cold: float = 0.0
    cold_s: float = 1.0
    fade: float = 0.0
    stall_rate: float = 0.0
    stall_s: float = 0.0
    death_s: float = np.inf

    @property
    def service_s(self) -> float:
        """Mean time of one request alone in the server."""
        return self.fixed_s + self.item_s

    @property
    def capacity(self) -> float:
        """Requests per second that it can do at most, stalls aside."""
        return self.workers * self.max_batch / (self.fixed_s + self.max_batch * self.item_s)


@dataclass(slots=True)
class SimulatedServer:
    """A server with a virtual clock. Call `probe` like the real generator's `open_loop`."""

    law: ServerLaw
    rng: Generator
    slo_s: float | None = None  # over-saturation stop, as the generator does it: backlog beyond 5 x rate x slo_s
    drain_s: float = 2.0
    now_s: float = 0.0
    _free: list[float] = field(default_factory=list)
    _noise: list[float] = field(default_factory=list)
    _speed: list[float] = field(default_factory=list)
    _stalls: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._free = [0.0] * self.law.workers

    def probe(self, rate: float, seconds: float) -> Samples:
        """Poisson arrivals at `rate` for `seconds`, then a bounded drain."""
        count = int(self.rng.poisson(rate * seconds))
        scheduled = np.sort(self.rng.random(count)) * seconds
        done, sent = self._serve((scheduled + self.now_s).tolist(), rate)
        latency = np.asarray(done) - self.now_s - scheduled[:sent]
        scheduled = scheduled[:sent]
        cut = sent < count
        window = float(scheduled[-1]) if cut and sent else seconds
        late = (scheduled + latency > window + self.drain_s) | (scheduled + latency + self.now_s > self.law.death_s)
        end = window + (float(np.clip(np.max(scheduled + latency - window), 0.0, self.drain_s)) if sent else 0.0)
        self.now_s += end
        latency[late] = np.nan
        kind = "reset" if self.now_s > self.law.death_s else "unfinished"
        return Samples(
            scheduled_s=scheduled,
            latency_s=latency,
            offered_rate=rate,
            seconds=window,
            send_late_s=np.zeros(sent),
            errors={kind: int(late.sum())} if late.any() else {},
            oversaturated=cut,
        )

    def _serve(self, arrivals: list[float], rate: float) -> tuple[list[float], int]:
        """Absolute completion times of the arrivals that were sent before the over-saturation stop."""
        law, free, n = self.law, self._free, len(arrivals)
        done: list[float] = []
        limit = np.inf if self.slo_s is None else max(64.0, 5.0 * rate * self.slo_s)
        head = 0
        while head < n:
            first = max(free[0], arrivals[head])
            full = arrivals[head + law.max_batch - 1] if head + law.max_batch <= n else np.inf
            start = max(first, min(full, arrivals[head] + law.max_wait_s)) if law.max_batch > 1 else first
            tail = min(bisect_right(arrivals, start, head), head + law.max_batch) if law.max_batch > 1 else head + 1
            end = self._finish(start, law.fixed_s + (tail - head) * law.item_s)
            heapreplace(free, end)
            done.extend([end] * (tail - head))
            head = tail
            if limit < n and bisect_right(arrivals, end, head) - head > limit:
                stopped = bisect_right(arrivals, end, head)
                return done + self._rest(arrivals[head:stopped], done), stopped
        return done, n

    def _rest(self, arrivals: list[float], done: list[float]) -> list[float]:
        """The backlog at the stop is served at full batches."""
        law, out = self.law, list[float]()
        for head in range(0, len(arrivals), law.max_batch):
            size = min(law.max_batch, len(arrivals) - head)
            end = self._finish(max(self._free[0], arrivals[head]), law.fixed_s + size * law.item_s)
            heapreplace(self._free, end)
            out.extend([end] * size)
        return out

    def _finish(self, start: float, work: float) -> float:
        law = self.law
        if law.noise != "deterministic":
            if not self._noise:
                self._noise = self._draw().tolist()
            work *= self._noise.pop()
        if law.drift_sd or law.cold or law.fade:
            work /= self._speed_at(start)
        if not law.stall_rate:
            return start + work
        return self._stalled(start, work)

    def _draw(self) -> Floats:
        if self.law.noise == "exponential":
            return self.rng.exponential(1.0, _CHUNK)
        sigma = self.law.sigma
        return self.rng.lognormal(-0.5 * sigma * sigma, sigma, _CHUNK)

    def _speed_at(self, time_s: float) -> float:
        law = self.law
        index = int(time_s / _STEP_S)
        if law.drift_sd and index >= len(self._speed):
            keep = np.exp(-_STEP_S / law.drift_s)
            last = self._speed[-1] if self._speed else law.drift_sd * self.rng.standard_normal()
            for shock in self.rng.standard_normal(index + _CHUNK - len(self._speed)).tolist():
                last = keep * last + law.drift_sd * np.sqrt(1.0 - keep * keep) * shock
                self._speed.append(last)
        log_speed = (self._speed[index] if law.drift_sd else 0.0) - law.fade * time_s
        return float(np.exp(log_speed) * (1.0 - law.cold * np.exp(-time_s / law.cold_s)))

    def _stalled(self, start: float, work: float) -> float:
        """Pushes a piece of work through the stalls that it meets."""
        law, stalls = self.law, self._stalls
        while not stalls or stalls[-1] < start + work + 10.0 * law.stall_s:
            gaps = self.rng.exponential(1.0 / law.stall_rate, 256)
            begin = stalls[-1] if stalls else 0.0
            stalls.extend((begin + np.cumsum(gaps + law.stall_s)).tolist())
        index = max(0, bisect_right(stalls, start) - 1)
        if stalls[index] <= start < stalls[index] + law.stall_s:
            start = stalls[index] + law.stall_s
        end, index = start + work, bisect_right(stalls, start)
        while stalls[index] < end:
            end += law.stall_s
            index += 1
            if index == len(stalls):
                break
        return end


def true_rate(law: ServerLaw, slo: SLO, *, seed: int = 0, requests: int = 1_000_000, rounds: int = 7) -> float:
    """The highest rate that holds the SLO in the long run, or 0: by long simulations with common random numbers.

    Interpolates the logarithm of the share of too slow requests between the two rates that bracket the limit.
    """
    settled = replace(law, cold=0.0, fade=0.0, death_s=np.inf)
    low, high = law.capacity * 0.02, law.capacity * 0.999

    def excess(rate: float) -> float:
        return max(_log_excess(settled, slo, rate, seed, requests), -20.0)

    at_low, at_high = excess(low), excess(high)
    if at_low > 0.0:
        return 0.0
    for turn in range(rounds):
        share = 0.5 if turn < 4 else min(0.9, max(0.1, at_low / (at_low - at_high)))
        middle = low + share * (high - low)
        value = excess(middle)
        low, at_low, high, at_high = (middle, value, high, at_high) if value <= 0.0 else (low, at_low, middle, value)
    return low + (high - low) * at_low / (at_low - at_high)


def _log_excess(law: ServerLaw, slo: SLO, rate: float, seed: int, requests: int) -> float:
    """log of the worst (share over the limit / share allowed) at this rate; <= 0 where the SLO holds."""
    server = SimulatedServer(law, np.random.default_rng(seed), drain_s=np.inf)
    samples = server.probe(rate, requests / rate)
    latency = samples.latency_s[requests // 100 :]
    worst = -np.inf
    for name, limit_s in slo.latency_s.items():
        share = np.count_nonzero(latency > limit_s) / max(1, latency.size)
        worst = max(worst, float(np.log(max(share, 1e-12) / (1.0 - PERCENTILES[name]))))
    return worst


Kind = Callable[[float], ServerLaw]

# Named servers by their capacity in requests per second.
KINDS: dict[str, Kind] = {
    "queueing": lambda capacity: ServerLaw(workers=2, item_s=2.0 / capacity, noise="exponential"),
    "deterministic": lambda capacity: ServerLaw(item_s=1.0 / capacity, noise="deterministic"),
    "batching": lambda capacity: ServerLaw(
        fixed_s=4.0 / capacity,
        item_s=0.5 / capacity,
        max_batch=8,
        max_wait_s=2.0 / capacity,
        noise="lognormal",
        sigma=0.1,
    ),
    "drifting": lambda capacity: ServerLaw(
        workers=2, item_s=2.0 / capacity, noise="lognormal", sigma=0.3, drift_sd=0.03, drift_s=1.0, cold=0.2, cold_s=0.5
    ),
    "heavy_tailed": lambda capacity: ServerLaw(workers=4, item_s=4.0 / capacity, noise="lognormal", sigma=0.8),
    "stalls": lambda capacity: ServerLaw(
        workers=2, item_s=2.0 / capacity, noise="lognormal", sigma=0.3, stall_rate=1.0, stall_s=8.0 / capacity
    ),
}
