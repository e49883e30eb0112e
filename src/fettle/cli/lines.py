"""Progress of a long command: one line now and then on stderr."""

import time
from collections.abc import Callable

import click

_EVERY_S = 5.0


class Lines:
    def __init__(self) -> None:
        self._shown = time.monotonic()
        self._steps = 0

    def step(self, line: Callable[[int], str]) -> None:
        """One more step is done; line(steps) is shown if none was for a while."""
        self._steps += 1
        if time.monotonic() - self._shown >= _EVERY_S:
            self._shown = time.monotonic()
            click.echo(line(self._steps), err=True)
