"""How users narrow a server's space: `max_batch` read as they mean it."""

from collections.abc import Mapping, Sequence
from typing import Any

from fettle.core.errors import InvalidInput
from fettle.core.space import Space

_CHOICE, _SIZE = "batching", "batching.on.max_batch"
_SPELT = {True: "on", False: "off"}  # YAML reads a bare on or off as a boolean


def narrowed(space: Space, fix: Mapping[str, Any] | None, params: Mapping[str, Sequence[Any]] | None) -> Space:
    """`space.narrow(fix, params)`, where a max batch of 1 is batching off, and only larger ones are batching on.

    So max_batch=1,2,4 is off, 2 and 4; max_batch=2,4 leaves off out; fix max_batch=4 is batching on, by 4. Whoever
    names `batching` too has said what is meant. Raises InvalidInput.
    """
    fixed, listed = dict(fix or {}), {name: list(values) for name, values in (params or {}).items()}
    if both := sorted(set(fixed) & set(listed)):
        raise InvalidInput(f"{both[0]!r} is both fixed and restricted to values", "say one of them")
    wanted = {**listed, **{name: [value] for name, value in fixed.items()}}
    if _CHOICE in wanted:
        wanted[_CHOICE] = [_SPELT[v] if isinstance(v, bool) else v for v in wanted[_CHOICE]]
    elif _SIZE in space.names and (name := next((n for n in ("max_batch", _SIZE) if n in wanted), "")):
        sizes = wanted.pop(name)
        larger = [size for size in sizes if size not in (1, "1")]
        wanted[_CHOICE] = [*(["off"] if len(larger) < len(sizes) else []), *(["on"] if larger else [])]
        if larger or not sizes:
            wanted[name] = larger
    return space.narrow(None, wanted)
