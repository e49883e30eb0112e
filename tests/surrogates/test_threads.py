"""Linear algebra of the models runs on one thread, and what was set before comes back."""

import numpy as np
import scipy.linalg  # noqa: F401  its BLAS is to be there
from threadpoolctl import threadpool_info, threadpool_limits

import fettle
from fettle.surrogates.threads import on_one_thread, one_thread


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_threads_are_limited_inside_only() -> None:
    with threadpool_limits(2, user_api="blas"):
        with one_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {2}


def test_they_come_back_after_an_error() -> None:
    @on_one_thread
    def broken() -> None:
        raise ValueError(str(blas_threads()))

    with threadpool_limits(2, user_api="blas"):
        try:
            broken()
        except ValueError as error:
            assert str(error) == "{1}"
        assert blas_threads() == {2}


def test_a_search_leaves_the_evaluators_threads_alone() -> None:
    seen = []

    def evaluate(params: dict[str, float], ctx: object) -> dict[str, float]:
        seen.append(blas_threads())
        return {"loss": float(np.square(params["x"] - 0.3))}

    study = fettle.Study(fettle.Space(x=fettle.Float(0, 1)), objectives=["loss"], algorithm="gp_bo", seed=0)
    with threadpool_limits(2, user_api="blas"):
        study.run(evaluate, trials=8, executor="inline")
    assert seen == [{2}] * 8
