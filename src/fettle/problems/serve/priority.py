"""Where the load generator runs: a core of its own, or first in line on a shared one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fettle.core.serving import Machine

_RAISE = 10
_ALONE = 4  # with so many cores the generator and the server get disjoint ones


@dataclass(frozen=True, slots=True)
class Placement:
    """server: what the server may use; generator_cores; shared: both may meet on a core."""

    server: Machine
    generator_cores: tuple[int, ...]
    shared: bool


def place(machine: Machine) -> Placement:
    cores = machine.cores
    if len(cores) >= _ALONE:
        return Placement(Machine(cores[:-1], machine.memory_bytes, machine.facts), cores[-1:], False)
    return Placement(machine, cores[-1:], True)


@contextmanager
def as_generator(placement: Placement) -> Iterator[int]:
    """Pins this process to the generator's core with a higher priority; yields what to add to the server's niceness.

    Raising one's own priority takes a privilege; without it the server's is lowered instead.
    """
    before, nice = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    server_nice = 0
    os.sched_setaffinity(0, placement.generator_cores)
    try:
        if placement.shared:
            try:
                os.setpriority(os.PRIO_PROCESS, 0, nice - _RAISE)
                server_nice = _RAISE  # children inherit ours
            except PermissionError:
                server_nice = 5
        yield server_nice
    finally:
        os.sched_setaffinity(0, before)
        try:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
        except PermissionError:
            pass  # it was never raised
