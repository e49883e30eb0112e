"""The serve problem: which configuration of an inference server holds the SLO at the lowest cost."""

import dataclasses
import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from fettle import registry
from fettle.core.errors import InvalidInput
from fettle.core.protocols import Confirmation, Context, Earlier, Measure, Metrics, Target
from fettle.core.serving import Machine, Model, Tensors
from fettle.core.space import Space
from fettle.core.trial import Constraint, Objective, Params, State, Trial
from fettle.host.machine import fingerprint, machine, machine_lock
from fettle.host.redact import redact, redact_env
from fettle.problems.runtimes.probe import remembered
from fettle.problems.serve import codec
from fettle.problems.serve.batching import narrowed
from fettle.problems.serve.collect.rows import Measurements, measurements
from fettle.problems.serve.confirm import confirm
from fettle.problems.serve.cost import Prices
from fettle.problems.serve.earlier import stand_ins
from fettle.problems.serve.export import export_server
from fettle.problems.serve.model import agreement, features, load_model, reference, samples
from fettle.problems.serve.priority import place
from fettle.problems.serve.slo import SLO

OBJECTIVES: Mapping[str, Objective] = {
    "cost": Objective("cost_per_million", "minimize"),
    "throughput": Objective("throughput_rps", "maximize"),
    "latency": Objective("latency_p99_at_rate_s", "minimize"),
}
PACKAGES = ("fettle", "numpy", "scipy", "onnx", "onnxruntime", "mosec", "uvloop")
ARRIVALS = ("poisson", "constant")
SHIPPED = Path(str(files("fettle.data"))) / "meta" / "onnxruntime-cpu.jsonl.gz"
_STAND_INS, _POINTS = 12, 250
_TOP = 3
_LEAST_BYTES = 16 << 20


@dataclass(frozen=True)
class ServeProblem:
    """See `fettle.core.protocols.Problem`. Made by `make`, and by `from_spec` on resume.

    rate: the offered rate at which latency is an objective; None until the defaults have been measured.
    requests: how many the answer is to serve, which is what a trial has to pay for. memory_bytes: what the server is
    allotted and charged; None charges its peak with a margin.
    """

    model: Model
    target: Target
    slo: SLO
    objective: tuple[str, ...]
    space: Space
    given: Mapping[str, Any]  # the options as JSON, from which `from_spec` makes the problem again
    prices: Prices = field(default_factory=Prices)
    rate: float | None = None
    requests: float | None = None
    arrivals: str = "poisson"
    inputs: Path | None = None
    machine: Machine = field(default_factory=machine)
    memory_bytes: int | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        return "serve"

    @property
    def fidelity(self) -> tuple[float, float] | None:
        return None

    @property
    def label(self) -> str:
        return self.model.name

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return tuple(OBJECTIVES[name] for name in self.objective)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        return tuple(Constraint(metric, upper=limit) for metric, limit in self.slo.constraints().items())

    @functools.cached_property
    def items(self) -> list[dict[str, Any]]:
        """What requests carry: at least 32 distinct items."""
        return samples(self.model, inputs=self.inputs, seed=self.seed)

    def precision(self, params: Params) -> str:
        """The variant of the model that these params serve."""
        return str(params.get("precision", next(iter(self.model.variants))))

    def references(self, precision: str) -> Sequence[Tensors]:
        """ONNX Runtime's own answers to the items."""
        key = (self.model.hashes[precision], str(self.inputs), self.seed)
        return _references(key, precision, _Held((self.model, self.items)))

    def spec(self) -> dict[str, Any]:
        return {
            "name": "serve",
            "model": {
                "name": self.model.name,
                "variants": {key: str(path) for key, path in self.model.variants.items()},
                "hashes": dict(self.model.hashes),
            },
            "slo": dict(self.slo.latency_s),
            "slo_text": str(self.slo),
            "objective": list(self.objective),
            **self.given,
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> "ServeProblem":
        """Rebuilds the problem of a stored study. Raises InvalidInput where the model has changed since."""
        options = {k: v for k, v in spec.items() if k not in ("name", "model", "slo", "slo_text", "objective")}
        if options.pop("redacted", False):
            raise InvalidInput(
                "this study was given a secret, which is not stored with it",
                "start it again with the same arguments and --name: that goes on from where it was",
            )
        problem = make(spec["model"]["variants"], slo=spec["slo_text"], objective=spec["objective"], **options)
        for precision, stored in spec["model"]["hashes"].items():
            if problem.model.hashes[precision] != stored:
                raise InvalidInput(
                    f"the model {problem.model.variants[precision]} has changed since the study was made",
                    "put the old file back, or start a new study",
                )
        return problem

    @functools.cached_property
    def features(self) -> Mapping[str, float]:
        """Figures of the reference model, by its graph; {} where they cannot be told at once."""
        return features(self.model)

    @property
    def hot(self) -> frozenset[str]:
        return self.target.hot

    def earlier(self, collected: Sequence[Measurements]) -> list[Earlier]:
        if not self.features:
            return []
        measured = [*collected, *measurements(SHIPPED)] if SHIPPED.is_file() else collected
        return stand_ins(self, measured, n=_STAND_INS, points=_POINTS)

    def record(self) -> dict[str, Any]:
        """What a study's record holds besides the space and the objectives."""
        precisions = list(self.model.variants)
        first = self.references(precisions[0])
        facts = fingerprint(PACKAGES)
        return {
            "problem": self.spec(),
            "prices": dataclasses.asdict(self.prices),
            "baseline": True,
            "fingerprint": {**facts, "model_hash": dict(self.model.hashes)},
            "machine": {"cores": len(self.machine.cores), "memory_bytes": self.machine.memory_bytes},
            "coding_cost_s": codec.coding_cost_s(self.items[:8], list(first[:8])),
            "agreement": {p: agreement(first, self.references(p)) for p in precisions[1:]},
            "features": dict(self.features),
            "probe": remembered(machine()),
        }

    def defaults(self) -> Params:
        return self.target.defaults(self.model, place(self.machine).server)

    def completed(self, trials: Sequence[Trial]) -> "ServeProblem":
        """Latency is compared at half of the defaults' peak, unless a rate was given; of the first configuration
        that holds the SLO, where the defaults do not."""
        if self.rate is not None or "latency" not in self.objective:
            return self
        found = next((t.artifacts["rate"] for t in trials if "rate" in t.artifacts), None)
        return self if found is None else dataclasses.replace(self, rate=found)

    @property
    def gain_per_s(self) -> float | None:
        """By how much the cost has to fall to pay for a second of this machine; None where nobody said how many
        requests there will be."""
        if self.requests is None:
            return None
        here = self.machine
        hourly = self.prices.per_hour(cores=len(here.cores), memory_bytes=here.memory_bytes)
        return hourly / 3600 / (self.requests / 1e6)

    def alone(self, timeout_s: float) -> AbstractContextManager[None]:
        return machine_lock(timeout_s)

    def evaluate(self, params: Params, ctx: Context) -> Metrics:
        from fettle.problems.serve.measure import evaluate

        return evaluate(self, params, ctx, warm=True)

    def measure(self, settings: Mapping[str, Any], params: Params, ctx: Context) -> Metrics:
        from fettle.problems.serve.measure import evaluate

        return evaluate(self, params, ctx, **settings)

    def estimate(self, params: Params) -> Metrics:
        return {}

    def confirm(
        self, ranked: Sequence[Trial], baseline: Trial | None, measure: Measure, *, budget_s: float
    ) -> Iterator[Confirmation]:
        """The best three, the defaults, and the best at the defaults' precision: what is gained by the
        configuration alone is reported beside what another precision gains."""
        chosen = list(ranked[:_TOP])
        reported = []
        if baseline is not None and baseline.state is State.COMPLETE:
            equal = [t for t in ranked if self.precision(t.params) == self.precision(baseline.params)]
            reported = [baseline, *equal[:1]]
        chosen += [t for t in reported if t not in chosen]
        numbers = list(dict.fromkeys(t.number for t in reported))
        return confirm(chosen, measure, self.objectives, budget_s=budget_s, reported=numbers)

    def export(self, trial: Trial, folder: Path) -> dict[str, str]:
        figures = {k: v for k, v in trial.metrics.items() if math.isfinite(v)}
        return export_server(
            folder,
            self.model,
            self.target,
            trial.params,
            machine=place(self.machine).server,
            operating_point=figures,
            sample_items=self.items[:1],
        )


def make(
    model: "str | Path | Mapping[str, str | Path]",
    *,
    slo: "str | Mapping[str, Any]",
    objective: "str | Sequence[str]" = "cost",
    target: "str | Mapping[str, Any]" = "mosec",
    rate: float | None = None,
    requests: float | None = None,
    fix: Mapping[str, Any] | None = None,
    params: Mapping[str, Sequence[Any]] | None = None,
    inputs: "str | Path | None" = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    prices: Any = None,
    cores: int | None = None,
    memory_bytes: int | None = None,
    arrivals: str = "poisson",
    seed: int = 0,
) -> ServeProblem:
    """Checks everything that can be checked before the first server starts. Raises InvalidInput."""
    limits = _slo(slo)
    chosen = _objectives(objective)
    if rate is not None and not (_is_number(rate) and 0 < rate < math.inf):
        raise InvalidInput(f"expected a rate above 0 requests/s, got {rate!r}", "e.g. --rate 100")
    if requests is not None and not (_is_number(requests) and 0 < requests < math.inf):
        raise InvalidInput(f"expected more than 0 requests, got {requests!r}", "e.g. --requests 1e9")
    if requests is not None and chosen != ("cost",):
        raise InvalidInput("requests are a stop rule for the objective cost alone", "leave out --requests")
    if memory_bytes is not None and not (_is_number(memory_bytes) and memory_bytes >= _LEAST_BYTES):
        raise InvalidInput(f"expected at least {_LEAST_BYTES} bytes of memory, got {memory_bytes!r}", "leave it out")
    if arrivals not in ARRIVALS:
        raise InvalidInput(f"unknown arrivals {arrivals!r}", f"known: {', '.join(ARRIVALS)}")
    here, made, table = _machine(cores), _target(target), Prices.load(prices)
    shapes = {name: tuple(shape) for name, shape in (input_shapes or {}).items()}
    samples_path = None if inputs is None else Path(inputs).absolute()
    paths = {k: Path(v).absolute() for k, v in model.items()} if isinstance(model, Mapping) else Path(model).absolute()
    loaded = load_model(paths, input_shapes=shapes, inputs=samples_path)
    space = narrowed(made.space(loaded, place(here).server), fix, params)
    given = {
        "target": dict(target) if isinstance(target, Mapping) else target,
        "rate": rate,
        "requests": requests,
        "fix": dict(fix or {}),
        "params": {k: list(v) for k, v in (params or {}).items()},
        "inputs": None if samples_path is None else str(samples_path),
        "input_shapes": {k: list(v) for k, v in shapes.items()},
        "prices": dataclasses.asdict(table),
        "cores": cores,
        "memory_bytes": memory_bytes,
        "arrivals": arrivals,
        "seed": seed,
    }
    return ServeProblem(
        model=loaded,
        target=made,
        slo=limits,
        objective=chosen,
        space=space,
        given=_without_secrets(given),
        prices=table,
        rate=rate,
        requests=requests,
        arrivals=arrivals,
        inputs=samples_path,
        machine=here,
        memory_bytes=memory_bytes,
        seed=seed,
    )


def _slo(slo: "str | Mapping[str, Any]") -> SLO:
    if isinstance(slo, str):
        return SLO.parse(slo)
    unit = {"errors": ""}
    terms = [f"{k}={v}" if isinstance(v, str) else f"{k}={v:.12g}{unit.get(k, 's')}" for k, v in slo.items()]
    return SLO.parse(",".join(terms))


def _objectives(objective: "str | Sequence[str]") -> tuple[str, ...]:
    names = [n.strip() for n in objective.split(",")] if isinstance(objective, str) else list(objective)
    short = {o.metric: name for name, o in OBJECTIVES.items()}
    chosen = tuple(short.get(n, n) for n in names)
    if unknown := [n for n in chosen if n not in OBJECTIVES]:
        raise InvalidInput(f"unknown objective {unknown[0]!r}", f"known: {', '.join(OBJECTIVES)}")
    if not chosen or len(set(chosen)) < len(chosen):
        raise InvalidInput(f"expected each objective once, got {list(chosen)}", "e.g. --objective cost,latency")
    return chosen


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _machine(cores: int | None) -> Machine:
    here = machine()
    if cores is None:
        return here
    if not (isinstance(cores, int) and not isinstance(cores, bool) and 1 <= cores <= len(here.cores)):
        raise InvalidInput(f"expected 1 to {len(here.cores)} cores, got {cores!r}", "leave --cores out for all of them")
    return Machine(here.cores[:cores], here.memory_bytes, here.facts)


def _target(target: "str | Mapping[str, Any]") -> Target:
    if isinstance(target, str):
        target = {"name": target}
    if "name" not in target:
        raise InvalidInput(f"the target lacks a name: {dict(target)}", f"known: {', '.join(registry.names('targets'))}")
    kind = registry.load("targets", target["name"])
    options = {k: v for k, v in target.items() if k != "name"}
    make_target = getattr(kind, "from_options", kind)
    try:
        made: Target = make_target(**options)
    except TypeError as error:
        given = ", ".join(options) or "none"
        what = f"target {target['name']} does not take these options: {given} ({error})"
        raise InvalidInput(what, "leave out what it does not know") from error
    return made


def _without_secrets(given: Mapping[str, Any]) -> dict[str, Any]:
    """Secrets in URLs and headers stay out of the journal; `redacted` says that something is missing."""
    kept: dict[str, Any] = _redacted(given)
    return kept if json.dumps(kept) == json.dumps(given) else {**kept, "redacted": True}


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {k: redact_env(v) if k == "headers" else _redacted(v) for k, v in value.items()}
    return [_redacted(v) for v in value] if isinstance(value, list | tuple) else value


class _Held(tuple[Any, ...]):
    """Arguments that a cache must not compare: the key beside them says it all."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


@functools.lru_cache(maxsize=8)
def _references(key: tuple[Any, ...], precision: str, held: _Held) -> list[dict[str, Any]]:
    model, items = held
    return reference(model, precision, items)
