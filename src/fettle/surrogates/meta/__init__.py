"""Learning from earlier tasks: records of what was measured, and models that start a new search from them."""

from fettle.surrogates.meta.model import MetaModel, load, train
from fettle.surrogates.meta.store import Store
from fettle.surrogates.meta.task import Row, Task

__all__ = ["MetaModel", "Row", "Store", "Task", "load", "train"]
