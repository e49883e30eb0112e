"""Roofline (Williams et al. 2009, doi:10.1145/1498765.1498785): throughput and latency that nobody has measured yet.

A prior mean and nothing more: published predictors of this kind are off by a third to fourfold, and the constants here
are rough shares of what a machine's best matrix product reaches. Live trials decide.
"""

import math
from collections.abc import Callable, Mapping

from fettle.core.space import Params

_EFFICIENCY = {  # share of the rate of a large matrix product that operators of a kind reach
    "conv": 0.8,
    "pointwise": 0.6,
    "depthwise": 0.12,
    "matmul": 0.7,
    "recurrent": 0.35,
    "normalise": 0.1,
    "pool": 0.1,
    "elementwise": 0.1,
    "move": 1.0,
}
_SERIAL = 0.1  # of an operator's time, which further threads do not shorten
_DISPATCH_S = 3e-6  # per operator
_UNFUSED = {"disabled": 1.6, "basic": 1.4}  # more operators than when all are fused
_SLOWER = {"disabled": 1.4, "basic": 1.3, "extended": 1.2}  # layouts that suit the processor come with "all"


def roofline(features: Mapping[str, float], machine: Mapping[str, float]) -> Callable[[Params], dict[str, float]]:
    """Params -> {throughput_rps, latency_p50_s} with all workers busy.

    features: of the model in fp32, from `runtimes.onnxgraph`; machine: from `runtimes.probe`. The params read are
    workers, threads, cores (those that they may use), max_batch, precision (int8 is fast only where "extended" or "all"
    joins its operators) and graph_optimization; any of them may be absent.
    """
    flops = features["flops"]
    shares = {kind: features.get(f"share_{kind}", 0.0) for kind in _EFFICIENCY}
    slowdown = sum(share / _EFFICIENCY[kind] for kind, share in shares.items()) or 1.0

    def predict(params: Params) -> dict[str, float]:
        workers, threads = int(params.get("workers", 1)), int(params.get("threads", 1))
        cores = max(1.0, min(machine["cores"], float(params.get("cores", math.inf))))
        batch = int(params.get("max_batch", 1))
        level = str(params.get("graph_optimization", "all"))
        int8 = params.get("precision", "fp32") == "int8"
        fused = int8 and level in ("extended", "all")
        share = min(float(threads), cores / workers)  # cores that one worker gets
        spread = share if share <= 1.0 else share / (1.0 + _SERIAL * (share - 1.0))
        rate = _rate(machine, "ops_int8" if fused else "flops_fp32", min(cores, workers * threads))
        compute_s = flops * batch * slowdown * _SLOWER.get(level, 1.0) / (rate * spread)
        width = 0.25 if fused else 1.0
        weight_bytes = features["weight_bytes"] * (2.5 if int8 and not fused else width)  # unpacked at each run
        moved = weight_bytes + features["activation_bytes"] * width * batch
        bandwidth = min(machine["bandwidth_1"] * spread, machine["bandwidth_all"] / workers)
        dispatch_s = features["operators"] * _DISPATCH_S * _UNFUSED.get(level, 1.0) / min(1.0, share)
        latency_s = max(compute_s, moved / bandwidth) + dispatch_s
        return {"throughput_rps": workers * batch / latency_s, "latency_p50_s": latency_s}

    return predict


def _rate(machine: Mapping[str, float], name: str, busy: float) -> float:
    """Operations per second of one core while `busy` of them work: between that of a lone one and that of all."""
    cores = machine["cores"]
    alone, crowded = machine[f"{name}_1"], machine[f"{name}_all"] / cores
    return alone if cores <= 1 else alone + (crowded - alone) * (busy - 1.0) / (cores - 1.0)
