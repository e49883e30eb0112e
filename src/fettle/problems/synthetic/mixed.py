"""Kind mixed: numbers on log and linear scales, integers, ordinals and categories that interact.

Each problem looks like one that people tune; what is drawn per seed is where its optimum lies, which level of a
category is the good one, and how levels and directions interact.
"""

from collections.abc import Mapping

from fettle.core.domains import Domain
from fettle.core.space import Categorical, Float, Int, Ordinal
from fettle.problems.synthetic.landscape import Form, Part, added, landscape, levelled
from fettle.problems.synthetic.record import Maker, Synthetic, stream


def synthetic(kind: str, name: str, seed: int, part: Part, noise: float = 0.0) -> Synthetic:
    """One objective, to minimise, whose least value is no round number; noise: the sd."""
    part = levelled(part, name, seed)
    return Synthetic(
        name, kind, seed, part.space, lambda params: {"loss": part.loss(params)}, part.best, part.low,
        noise=(lambda params: noise) if noise else None,
    )  # fmt: skip


def network() -> tuple[dict[str, Domain], Form]:
    """The optimiser moves the best learning rate, and too high a rate hurts most."""
    return {
        "lr": Float(1e-5, 1, log=True),
        "batch": Int(8, 1024, log=True),
        "optimizer": Categorical(["sgd", "momentum", "adam", "rmsprop"]),
        "depth": Int(1, 10),
        "dropout": Float(0, 0.8),
    }, Form("steep", mix=0.6, levels=0.4, shift=0.25)


def boosting() -> tuple[dict[str, Domain], Form]:
    """A valley of trees against rate; depth on a plateau; two parameters without effect."""
    return {
        "trees": Int(10, 3000, log=True),
        "rate": Float(1e-3, 1, log=True),
        "depth": Int(1, 16),
        "subsample": Float(0.3, 1),
        "min_child": Ordinal([1, 2, 5, 10, 20, 50]),
        "booster": Categorical(["gbtree", "dart", "goss"]),
        "gamma": Float(1e-8, 10, log=True),
        "warm_start": Categorical([True, False]),
    }, Form("valley", levels=0.5, shift=0.1, idle=("gamma", "warm_start"), flat={"depth": 0.12})


def kernel() -> tuple[dict[str, Domain], Form]:
    """Two log parameters that the kernel moves far; the rest hardly counts."""
    return {
        "C": Float(1e-3, 1e4, log=True),
        "gamma": Float(1e-6, 10, log=True),
        "kernel": Categorical(["rbf", "poly", "linear", "sigmoid", "laplacian"]),
        "degree": Int(2, 5),
        "shrinking": Categorical(["yes", "no"]),
        "tol": Float(1e-6, 1e-1, log=True),
    }, Form("bowl", mix=0.8, levels=0.8, shift=0.3, idle=("degree", "shrinking", "tol"))


def pipeline() -> tuple[dict[str, Domain], Form]:
    """Four categories with interactions between each two, and three numbers."""
    return {
        "scaler": Categorical(["none", "standard", "minmax", "robust", "quantile"]),
        "encoder": Categorical(["onehot", "target", "hash"]),
        "selector": Categorical(["none", "variance", "mutual", "forest"]),
        "solver": Categorical(["lbfgs", "newton", "saga", "sag"]),
        "alpha": Float(1e-6, 1e2, log=True),
        "keep": Float(0.05, 1),
        "bins": Int(2, 256, log=True),
    }, Form("ripples", levels=0.3, shift=0.1, pairs=0.8)


def stairs() -> tuple[dict[str, Domain], Form]:
    """Integers and ordinals only; steps and plateaus."""
    return {
        "layers": Int(1, 6),
        "heads": Ordinal([1, 2, 4, 8, 16]),
        "width": Int(32, 1024, step=32),
        "patience": Int(1, 40),
        "kernel": Ordinal([3, 5, 7, 9]),
        "threads": Int(1, 12),
        "norm": Categorical(["batch", "layer", "none"]),
    }, Form("bowl", mix=0.4, spread=6, levels=0.5, shift=0.1, flat={"patience": 0.1, "threads": 0.05})


def vision() -> tuple[dict[str, Domain], Form]:
    return {
        "lr": Float(1e-4, 10, log=True),
        "decay": Float(1e-7, 1e-1, log=True),
        "momentum": Float(0, 0.99),
        "schedule": Categorical(["cosine", "step", "linear"]),
        "augment": Ordinal([0, 1, 2, 3, 4, 5]),
        "filters": Int(8, 256, log=True),
    }, Form("valley", mix=0.5, levels=0.6, shift=0.2)


def forest() -> tuple[dict[str, Domain], Form]:
    return {
        "trees": Int(5, 1000, log=True),
        "features": Float(0.05, 1),
        "leaf": Int(1, 60),
        "criterion": Categorical(["gini", "entropy", "log_loss"]),
        "bootstrap": Categorical([True, False]),
        "depth": Ordinal(["2", "4", "8", "16", "32"]),
        "seed_trick": Int(0, 99),
    }, Form("cone", mix=0.3, spread=5, levels=0.4, shift=0.15, idle=("seed_trick",), flat={"trees": 0.1})


def compiler() -> tuple[dict[str, Domain], Form]:
    return {
        "tile_x": Ordinal([1, 2, 4, 8, 16, 32, 64]),
        "tile_y": Ordinal([1, 2, 4, 8, 16, 32, 64]),
        "unroll": Int(1, 16),
        "vector": Categorical(["off", "sse", "avx", "avx512"]),
        "layout": Categorical(["row", "column", "blocked"]),
        "fuse": Categorical([True, False]),
        "prefetch": Float(0, 4),
    }, Form("ripples", mix=0.7, levels=0.6, shift=0.2, pairs=0.4)


def ranking() -> tuple[dict[str, Domain], Form]:
    return {
        "lr": Float(1e-5, 1e-1, log=True),
        "embedding": Int(4, 512, log=True),
        "negatives": Int(1, 50),
        "loss": Categorical(["bpr", "hinge", "softmax", "warp"]),
        "l2": Float(1e-9, 1e-2, log=True),
        "margin": Float(0, 2),
        "sampler": Categorical(["uniform", "popular"]),
        "clip": Float(0.1, 10, log=True),
        "epochs": Int(1, 100, log=True),
    }, Form("bowl", mix=0.7, spread=10, levels=0.5, shift=0.12, idle=("margin", "clip"))


def _two_blocks(name: str, seed: int) -> Part:
    """Two independent blocks of which one counts four times as much: additive, twelve parameters."""
    rng = stream(name, seed)
    first: Mapping[str, Domain] = {
        "a_rate": Float(1e-4, 1, log=True), "a_size": Int(1, 64), "a_kind": Categorical(["p", "q", "r"]),
        "a_mix": Float(-1, 1), "a_lag": Float(0, 30), "a_flag": Categorical([0, 1]),
    }  # fmt: skip
    second = {n.replace("a_", "b_"): d for n, d in first.items()}
    return added(
        landscape(rng, first, Form("bowl", levels=0.5)),
        landscape(rng, second, Form("cone", levels=0.5)).lifted(0, 0.25),
    )


_TABLE = {
    "mixed_network": network, "mixed_boosting": boosting, "mixed_kernel": kernel, "mixed_pipeline": pipeline,
    "mixed_stairs": stairs, "mixed_vision": vision, "mixed_forest": forest, "mixed_compiler": compiler,
    "mixed_ranking": ranking,
}  # fmt: skip
_NOISE = {"noisy_network": ("mixed_network", 0.07), "noisy_compiler": ("mixed_compiler", 0.07)}


def _make(name: str, seed: int) -> Synthetic:
    domains, form = _TABLE[name]()
    return synthetic("mixed", name, seed, landscape(stream(name, seed), domains, form))


def _make_two_blocks(name: str, seed: int) -> Synthetic:
    return synthetic("mixed", name, seed, _two_blocks(name, seed))


def _make_noisy(name: str, seed: int) -> Synthetic:
    plain, noise = _NOISE[name]
    domains, form = _TABLE[plain]()
    return synthetic("noisy", name, seed, landscape(stream(name, seed), domains, form), noise)


TUNED: dict[str, dict[str, Maker]] = {
    "mixed": {
        **dict.fromkeys(("mixed_network", "mixed_boosting", "mixed_kernel", "mixed_pipeline", "mixed_stairs"), _make),
        "mixed_two_blocks": _make_two_blocks,
    },
    "noisy": {"noisy_network": _make_noisy},
}
HOLDOUT: dict[str, dict[str, Maker]] = {
    "mixed": dict.fromkeys(("mixed_vision", "mixed_forest", "mixed_compiler", "mixed_ranking"), _make),
    "noisy": {"noisy_compiler": _make_noisy},
}
