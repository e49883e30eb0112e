"""Where the search benchmark finds its problems: Fettle's synthetic ones, and measured tables where there are any."""

import measured

from fettle.problems import synthetic
from fettle.problems.synthetic import Synthetic

KINDS = (*synthetic.KINDS, measured.KIND)


def names(kind: str, which: str) -> list[str]:
    if kind == measured.KIND:
        return measured.names() if which in ("tables", "all") else []
    return [] if which == "tables" else synthetic.names(kind, which)


def kind_of(name: str) -> str:
    return measured.KIND if "#" in name else synthetic.kind_of(name)


def make(name: str, seed: int = 0) -> Synthetic:
    return measured.make(name, seed) if "#" in name else synthetic.make(name, seed)
