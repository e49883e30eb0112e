"""Where journals live."""

from pathlib import Path

from fettle.core.protocols import Storage


def open_storage(storage: "str | Path | Storage | None", *, must_exist: bool = False) -> Storage:
    """None or 'memory' -> memory; a path or sqlite:/// URL -> SQLite; a Storage is passed through."""
    if storage is None or storage == "memory":
        from fettle.storage.memory import MemoryStorage

        return MemoryStorage()
    if isinstance(storage, str | Path):
        from fettle.storage.sql import SqlStorage

        return SqlStorage(storage, must_exist=must_exist)
    return storage
