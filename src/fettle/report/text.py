"""Text from elsewhere (names, parameters, log lines) made harmless to look at."""

import unicodedata
from typing import Any

_KEPT = {"\t": " ", "\n": " ", "\r": " "}


def plain(value: Any, *, lines: bool = False, limit: int = 20_000) -> str:
    """The value as visible text: control characters (escape sequences with them), direction overrides and
    other invisible ones become U+FFFD or spaces. lines: newlines stay. limit: characters that are kept."""
    text = value if isinstance(value, str) else str(value)
    cut = text[:limit] + (" ..." if len(text) > limit else "")
    return "".join(_visible(c, lines) for c in cut)


def _visible(character: str, lines: bool) -> str:
    if lines and character == "\n":
        return character
    if character in _KEPT:
        return _KEPT[character]
    category = unicodedata.category(character)
    return "\ufffd" if category in ("Cc", "Cf", "Cs", "Zl", "Zp") else character


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, with an ellipsis in the middle: both ends of a path tell something."""
    if len(text) <= limit:
        return text
    head = (limit - 1) * 2 // 3
    return f"{text[:head]}\u2026{text[len(text) - (limit - 1 - head) :]}"


def sentence(text: str) -> str:
    """With a capital first letter, but p99 stays p99."""
    return text if text[1:2].isdigit() else text[:1].upper() + text[1:]


def joined(words: list[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
