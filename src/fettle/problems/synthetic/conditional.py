"""Kind conditional: branches whose parameters exist only where they are chosen.

A *decoy* looks good at once (a wide, flat basin at a decent value); a *late* branch is bad at a typical point and
pays only after tuning inside it. There are spaces of one to three levels, of two to eight branches, with shared
parameters beside the branches, and some where the branch that is good at once is the right one.
"""

from collections.abc import Callable

import numpy as np

from fettle.core.domains import Domain
from fettle.core.space import Categorical, Float, Int, Ordinal
from fettle.problems.synthetic.landscape import Form, Part, added, chosen, landscape
from fettle.problems.synthetic.mixed import synthetic
from fettle.problems.synthetic.record import Maker, Synthetic, stream

Rng = np.random.Generator
_UNITS: tuple[Callable[[], Domain], ...] = (
    lambda: Float(1e-5, 1, log=True),
    lambda: Float(0, 1),
    lambda: Float(-5, 5),
    lambda: Float(1e-2, 1e3, log=True),
    lambda: Float(0, 100),
    lambda: Float(1, 9),
)
_NAMES = ("rate", "share", "shift", "width", "share2", "power")


def floats(n: int) -> dict[str, Domain]:
    return {_NAMES[i]: _UNITS[i]() for i in range(n)}


def decoy(rng: Rng, n: int, floor: float = 0.13, height: float = 0.25) -> Part:
    """A wide flat basin at a decent value."""
    return landscape(rng, floats(n), Form("bowl", spread=2)).lifted(floor, height)


def late(rng: Rng, n: int, height: float = 1.5, shape: str = "bowl") -> Part:
    """Bad at a typical point; its optimum, 0, is the best of all."""
    return landscape(rng, floats(n), Form(shape, mix=0.6)).lifted(0.0, height)


def poor(rng: Rng, n: int, floor: float = 0.6) -> Part:
    return landscape(rng, floats(n), Form("bowl")).lifted(floor, 0.8)


def fixed(value: float) -> Part:
    """A branch without parameters."""
    return Part({}, {}, lambda params: value, value)


def two_level(rng: Rng) -> Part:
    """Three models, two of them with two solvers; the late leaf is one of five."""
    trees = chosen("solver", {"exact": decoy(rng, 2, 0.16), "hist": decoy(rng, 3, 0.13)}, rng)
    nets = chosen("solver", {"adam": late(rng, 4), "sgd": poor(rng, 3, 0.5)}, rng)
    return chosen("model", {"tree": trees, "net": nets, "linear": decoy(rng, 2, 0.2)}, rng)


def early_late(rng: Rng) -> Part:
    """One level, two branches: the plainest case."""
    return chosen("method", {"early": decoy(rng, 2, 0.18), "late": late(rng, 4)}, rng)


def eight_branches(rng: Rng) -> Part:
    """Many decoys of one to three parameters; the late branch is one of eight."""
    parts = {f"decoy{i}": decoy(rng, 1 + i % 3, 0.14 + 0.03 * i) for i in range(5)}
    parts |= {"late": late(rng, 2, 1.4, "ripples"), "poor0": poor(rng, 2), "poor1": poor(rng, 1, 0.8)}
    names = rng.permutation(list("abcdefgh")).tolist()
    return chosen("algo", dict(zip(names, parts.values(), strict=True)), rng)


def early_right(rng: Rng) -> Part:
    """The branch that looks good at once is the right one; the others only look as if they might pay late."""
    parts = {"a": landscape(rng, floats(3), Form("bowl")).lifted(0.0, 0.6), "b": late(rng, 3, 1.6).lifted(0.15)}
    return chosen("method", {**parts, "c": late(rng, 2, 1.2).lifted(0.3), "d": decoy(rng, 2, 0.35)}, rng)


def chained(rng: Rng) -> Part:
    """Three choices side by side, each with parameters of its own, and two shared ones; losses add up."""
    bins, powers = landscape(rng, {"n": Int(2, 64, log=True)}), landscape(rng, floats(1))
    scaler = chosen("scaler", {"none": fixed(0.3), "power": powers.lifted(0, 0.6), "bins": bins.lifted(0.15, 0.2)}, rng)
    model = chosen("model", {"knn": decoy(rng, 2, 0.2), "svm": late(rng, 2, 1.0), "bayes": poor(rng, 1, 0.4)}, rng)
    post = chosen("post", {"raw": fixed(0.1), "calibrated": landscape(rng, floats(2)).lifted(0, 0.3)}, rng)
    return added(scaler, model, post, landscape(rng, {"folds": Int(2, 12), "keep": Float(0, 1)}).lifted(0, 0.3))


def three_levels(rng: Rng) -> Part:
    """Choices in choices in choices; the late leaf lies at the bottom."""
    bottom = chosen("decay", {"cosine": late(rng, 3, 1.3, "steep"), "step": decoy(rng, 2, 0.2, 0.3)}, rng)
    middle = chosen("optimizer", {"adam": bottom, "sgd": decoy(rng, 3, 0.14), "lion": poor(rng, 2)}, rng)
    return chosen("family", {"net": middle, "boost": decoy(rng, 3, 0.17), "linear": poor(rng, 1, 0.5)}, rng)


def shared_outside(rng: Rng) -> Part:
    """Half the loss is of shared parameters that mean the same in every branch; branches hold all kinds of domains."""
    inside: dict[str, Domain] = {
        "levels": Int(1, 32, log=True),
        "mode": Categorical(["x", "y", "z"]),
        "gain": Float(1e-3, 10, log=True),
    }
    branches = {
        "plain": decoy(rng, 1, 0.2),
        "tuned": landscape(rng, inside, Form("bowl", levels=0.5, shift=0.2)).lifted(0.0, 1.1),
        "coarse": landscape(rng, {"size": Ordinal([1, 2, 4, 8, 16]), "cut": Float(0, 1)}).lifted(0.3, 0.3),
    }
    common: dict[str, Domain] = {"lr": Float(1e-4, 1, log=True), "batch": Int(8, 512, log=True), "decay": Float(0, 0.3)}
    return added(landscape(rng, common, Form("steep")).lifted(0, 0.5), chosen("head", branches, rng))


def late_of_four(rng: Rng) -> Part:
    parts = {"a": decoy(rng, 3, 0.14), "b": decoy(rng, 1, 0.22), "c": late(rng, 3, 1.5, "ripples"), "d": poor(rng, 4)}
    return chosen("route", parts, rng)


def six_branches(rng: Rng) -> Part:
    """One parameter in some branches, six in others; the late one has five."""
    parts = {f"m{i}": decoy(rng, n, 0.15 + 0.04 * i) for i, n in enumerate((1, 6, 2, 4))}
    return chosen("backend", {**parts, "m8": late(rng, 5, 1.2), "m9": poor(rng, 3)}, rng)


def pair_chained(rng: Rng) -> Part:
    encoder = chosen("encoder", {"fixed": decoy(rng, 1, 0.15), "learnt": late(rng, 2, 0.8)}, rng)
    beam = landscape(rng, {"width": Int(1, 40, log=True), "penalty": Float(0, 2)}, Form("valley"))
    decoder = chosen("decoder", {"greedy": fixed(0.15), "beam": beam.lifted(0, 0.5)}, rng)
    return added(encoder, decoder, landscape(rng, {"temperature": Float(0.1, 3, log=True)}).lifted(0, 0.3))


def deep_two(rng: Rng) -> Part:
    """Late at both levels, and a second branch that is nearly as good."""
    left = chosen("kind", {"p": late(rng, 3, 1.4), "q": decoy(rng, 2, 0.16), "r": poor(rng, 1)}, rng)
    right = chosen("kind", {"s": late(rng, 3, 1.3).lifted(0.08), "t": decoy(rng, 3, 0.18)}, rng)
    return chosen("side", {"left": left, "right": right, "none": fixed(0.45)}, rng)


def shared_four(rng: Rng) -> Part:
    parts = {"u": decoy(rng, 2, 0.2), "v": late(rng, 3, 1.0, "steep"), "w": poor(rng, 2), "x": decoy(rng, 2, 0.3, 0.3)}
    common = {"scale": Float(1e-2, 1e2, log=True), "share": Float(0, 1)}
    return added(landscape(rng, common, Form("bowl")).lifted(0, 0.4), chosen("plan", parts, rng))


def _makers(*made: Callable[[Rng], Part]) -> dict[str, Maker]:
    def maker(part: Callable[[Rng], Part]) -> Maker:
        def make(name: str, seed: int) -> Synthetic:
            return synthetic("conditional", name, seed, part(stream(name, seed)))

        return make

    return {part.__name__: maker(part) for part in made}


TUNED: dict[str, dict[str, Maker]] = {
    "conditional": _makers(two_level, early_late, eight_branches, early_right, chained, three_levels, shared_outside)
}
HOLDOUT: dict[str, dict[str, Maker]] = {
    "conditional": _makers(late_of_four, six_branches, pair_chained, deep_two, shared_four)
}
