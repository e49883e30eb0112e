"""The search space of a program that says what its parameters are only while it runs: read off its runs.

A parameter that is in all runs is a parameter of the space. One that is in some runs only is *nested* where a category
(or an integer of few values) decides on it: under each value of that gate it was in all runs or in none. The gate
becomes a Choice with one branch per value. What no gate explains is *optional*: a parameter as any other, whose value
counts for nothing in runs that did not ask for it (as `if lr > 0.1: ...`, or the third of `n_layers` widths).

A few runs may follow a rule by chance. The next run that breaks it ends it for good.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fettle.core.domains import Domain
from fettle.core.space import Choice, Float, Int, Params, Space

Values = Mapping[str, Any]  # a program's own params, without their paths

_MOST_BRANCHES = 16
_COPIES = {"categorical": 4, "int": 1}  # values of a gate that a parameter may be under: each has one of its own
_EARLY = 20  # runs: up to here whatever is new changes the space at once
_LATER = 1.05  # then once there are so many times the runs of the last change: algorithms have to be told all again


@dataclass(frozen=True, slots=True)
class Node:
    """One parameter. branches: by value of a gate, the parameters in it."""

    name: str
    domain: Domain
    optional: bool = False
    branches: tuple[tuple["Node", ...], ...] = ()


@dataclass(slots=True)
class Program:
    """A fold of runs. space: as it is known. version: raised when it changes."""

    domains: dict[str, Domain] = field(default_factory=dict)
    space: Space = field(default_factory=Space)
    version: int = 0
    _nodes: tuple[Node, ...] = ()
    _whole: list[Values] = field(default_factory=list)
    _ended: list[Values] = field(default_factory=list)  # before their end: what they lack they may have come to
    _stale: bool = False
    _learnt: int = 0  # runs at the last change

    def add(self, values: Values, domains: Mapping[str, Domain], *, whole: bool) -> None:
        """One run: its params, and the domains that it asked for them with."""
        for name, domain in domains.items():
            old = self.domains.get(name)
            if old != domain:
                self.domains[name] = new = domain if old is None else joined(old, domain)
                self._stale = self._stale or new != old
        first = whole and not self._whole
        (self._whole if whole else self._ended).append(values)
        if whole:
            required, optional = asked(self._nodes, values)
            self._stale = self._stale or first or not required <= values.keys() & self._varied <= required | optional
        runs = len(self._whole) + len(self._ended)
        if self._stale and (runs <= _EARLY or runs >= _LATER * self._learnt):
            self._learn(runs)

    def _learn(self, runs: int) -> None:
        evidence = [
            {name: nearest(self.domains[name], value) for name, value in run.items()}
            for run in self._whole or self._ended
        ]
        domains = {name: self.domains[name] for name in self.domains if name in self._varied}
        nodes = arranged(evidence, [name for name in domains if any(name in run for run in evidence)], domains)
        self._stale, self._learnt = False, runs
        if nodes != self._nodes:
            self._nodes, self.space = nodes, _space(nodes)
            self.version += 1

    @property
    def _varied(self) -> set[str]:
        return {name for name, domain in self.domains.items() if domain.size != 1}

    def encoded(self, values: Values) -> Params:
        """Params of the space; what is missing sits in the middle of its domain, numbers move into their ranges."""
        return dict(_encoded(self._nodes, values, ""))

    def decoded(self, params: Params) -> dict[str, Any]:
        """The program's own params."""
        return dict(_decoded(self._nodes, params, ""))


def nearest(domain: Domain, value: Any) -> Any:
    """The value of the domain that is nearest to a number; a category is itself."""
    if isinstance(domain, Float | Int):
        value = min(max(value, domain.low), domain.high)
        return value if domain.size is None else domain.decode(domain.encode(value))
    return value


def joined(a: Domain, b: Domain) -> Domain:
    """The narrowest domain that holds both; steps that do not fit each other are given up."""
    if isinstance(a, Float) and isinstance(b, Float):
        gap = (a.low - b.low) / (a.step or 1.0)
        step = a.step if a.step == b.step and abs(gap - round(gap)) < 1e-9 else None
        return Float(min(a.low, b.low), max(a.high, b.high), log=a.log and b.log, step=step)
    if isinstance(a, Int) and isinstance(b, Int):
        step = a.step if a.step == b.step and (a.low - b.low) % a.step == 0 else 1
        return Int(min(a.low, b.low), max(a.high, b.high), log=a.log and b.log, step=step)
    return b


# -- the tree -----------------------------------------------------------------------------------------------------


def arranged(runs: Sequence[Values], names: Sequence[str], domains: Mapping[str, Domain]) -> tuple[Node, ...]:
    """The tree of these names, in the order in which they were first asked for."""
    always = [name for name in names if all(name in run for run in runs)]
    sometimes = [name for name in names if name not in always]
    gates = [name for name in always if 1 < (domains[name].size or 0) <= _MOST_BRANCHES and _copies(domains[name])]
    seen = {(gate, name): _seen(runs, gate, name) for gate in gates for name in sometimes}
    gates = [g for g in gates if domains[g].kind == "categorical" or not any(_counts(seen[g, n]) for n in sometimes)]
    inside: dict[str, list[str]] = {}
    for name in sometimes:
        able = [gate for gate in gates if _decides(seen[gate, name], _copies(domains[gate]))]
        if able:
            before = [gate for gate in able if names.index(gate) < names.index(name)]
            inside.setdefault((before or able)[-1], []).append(name)
    held = {name for inner in inside.values() for name in inner}
    for name in sometimes:  # what a gate does not decide on, but confines to some of its branches: seen to in there
        hosts = [gate for gate in inside if _confines(seen[gate, name], _copies(domains[gate]))]
        if name not in held and hosts:
            held.add(name)
            inside[min(hosts, key=lambda gate: sum(any(there) for there in seen[gate, name].values()))].append(name)
    nodes = [Node(n, domains[n], branches=_branches(runs, n, inside.get(n, []), names, domains)) for n in always]
    return (*nodes, *(Node(name, domains[name], optional=True) for name in sometimes if name not in held))


def _branches(
    runs: Sequence[Values], gate: str, inside: Sequence[str], names: Sequence[str], domains: Mapping[str, Domain]
) -> tuple[tuple[Node, ...], ...]:
    if not inside:
        return ()
    made = []
    for value in domains[gate].values():
        here = [run for run in runs if run[gate] == value]
        made.append(arranged(here, [n for n in names if n in inside and any(n in run for run in here)], domains))
    return tuple(made)


def _copies(gate: Domain) -> int:
    return _COPIES.get(gate.kind, 0)


def _seen(runs: Sequence[Values], gate: str, name: str) -> dict[Any, set[bool]]:
    """By value of the gate: whether the name was there, in one run or another."""
    found: dict[Any, set[bool]] = {}
    for run in runs:
        found.setdefault(run[gate], set()).add(name in run)
    return found


def _decides(seen: Mapping[Any, set[bool]], copies: int) -> bool:
    return all(len(there) == 1 for there in seen.values()) and _confines(seen, copies)


def _confines(seen: Mapping[Any, set[bool]], copies: int) -> bool:
    under = sum(any(there) for there in seen.values())
    return under < len(seen) and under <= copies


def _counts(seen: Mapping[Any, set[bool]]) -> bool:
    """Whether the gate decides on the name by a threshold, as the number of layers does on their widths."""
    return _decides(seen, len(seen)) and not _confines(seen, 1)


def asked(nodes: Sequence[Node], values: Values) -> tuple[set[str], set[str]]:
    """The names that a run of these values has to ask for, and those that it may ask for."""
    required, optional = set[str](), set[str]()
    for node in nodes:
        (optional if node.optional else required).add(node.name)
        if node.branches and node.name in values:
            place = list(node.domain.values()).index(nearest(node.domain, values[node.name]))
            more = asked(node.branches[place], values)
            required |= more[0]
            optional |= more[1]
    return required, optional


def _space(nodes: Sequence[Node]) -> Space:
    """Parameters are p0, p1, ... and branches v0, v1, ...: programs may use names that a Space does not take."""
    domains: dict[str, Any] = {}
    for i, node in enumerate(nodes):
        inner = {f"v{j}": _space(branch) for j, branch in enumerate(node.branches)}
        domains[f"p{i}"] = Choice(inner) if inner else node.domain
    return Space(domains)


def _encoded(nodes: Sequence[Node], values: Values, prefix: str) -> Iterator[tuple[str, Any]]:
    for i, node in enumerate(nodes):
        value = nearest(node.domain, values[node.name]) if node.name in values else node.domain.decode(0.5)
        if node.branches:
            place = list(node.domain.values()).index(value)
            yield f"{prefix}p{i}", f"v{place}"
            yield from _encoded(node.branches[place], values, f"{prefix}p{i}.v{place}.")
        else:
            yield f"{prefix}p{i}", value


def _decoded(nodes: Sequence[Node], params: Params, prefix: str) -> Iterator[tuple[str, Any]]:
    for i, node in enumerate(nodes):
        value = params[f"{prefix}p{i}"]
        if node.branches:
            place = int(value[1:])
            yield node.name, list(node.domain.values())[place]
            yield from _decoded(node.branches[place], params, f"{prefix}p{i}.v{place}.")
        else:
            yield node.name, value
