"""Which names studies may have."""

from fettle.core.errors import InvalidInput


def check_name(name: str) -> None:
    """Raises InvalidInput. Names are shown and turned into folders, so nothing invisible is in them."""
    if not isinstance(name, str) or not 1 <= len(name) <= 200 or not name.isprintable() or name != name.strip():
        raise InvalidInput(
            f"a study's name has 1 to 200 printable characters and no space at its ends, got {name!r:.300}",
            "choose another --name",
        )
