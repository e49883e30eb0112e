"""Searches replayed on measured tasks: whether what other tasks teach would have helped."""

from fettle.replay.evaluation import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
