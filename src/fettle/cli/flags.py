"""Options that commands share, and those of `fettle serve`."""

from collections.abc import Callable
from typing import Any

import click

from fettle.registry import BUILTIN

STORAGE = "fettle.db"
_ALGORITHMS = [name for name in BUILTIN["algorithms"] if name not in ("boxed", "fewshot")]  # these need settings


def together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """One decorator of several."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


storage_option = click.option(
    "--storage",
    metavar="PATH",
    default=STORAGE,
    show_default=True,
    help="Where studies are kept: a path or sqlite:/// URL.",
)
store_option = click.option(
    "--store", metavar="FOLDER", help="Your own store of tasks; default: FETTLE_META, else ~/.local/share/fettle/meta."
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, nothing else.")
stored = together(click.argument("study"), storage_option, json_option)


serve_options = together(
    click.option("--slo", required=True, metavar="LIMITS", help="What has to hold: p99=50ms, or p95=20ms,errors=0.5%."),
    click.option(
        "--objective", default="cost", show_default=True, help="cost, throughput or latency; several with commas."
    ),
    click.option(
        "--budget", default="5m", show_default=True, metavar="TIME", help="For search and confirmation together."
    ),
    click.option("--trials", metavar="N", type=int, help="At most so many trials."),
    click.option(
        "--stop-regret",
        metavar="X",
        type=float,
        help="Ends the search where less than X of the objective could still be gained.",
    ),
    click.option(
        "--requests",
        metavar="N",
        type=float,
        help="How many the answer is to serve: ends the search where a trial costs more than it is expected to save.",
    ),
    click.option("--target", default="mosec", show_default=True, help="The inference server: mosec, command."),
    click.option(
        "--model-variant",
        "variants",
        multiple=True,
        metavar="PRECISION=FILE",
        help="The same model in another precision.",
    ),
    click.option("--fix", multiple=True, metavar="KNOB=VALUE", help="Keeps a knob at one value."),
    click.option(
        "--param",
        multiple=True,
        metavar="KNOB=A,B,...",
        help="Restricts a knob to some values; a max_batch of 1 is no batching.",
    ),
    click.option("--inputs", metavar="FILE.npz", help="Real samples to send; default: random ones."),
    click.option(
        "--input-shape",
        "shapes",
        multiple=True,
        metavar="NAME=1,3,64,64",
        help="One request's shape, where the model leaves it open.",
    ),
    click.option(
        "--rate",
        metavar="RPS",
        type=float,
        help="Requests/s at which latency is compared; default: half of the defaults' peak.",
    ),
    click.option(
        "--arrivals",
        default="poisson",
        show_default=True,
        type=click.Choice(["poisson", "constant"]),
        help="How requests are spaced.",
    ),
    click.option(
        "--cores", metavar="N", type=int, help="Cores that may be used, the load generator's included; default: all."
    ),
    click.option(
        "--memory",
        metavar="MIB",
        type=int,
        help="Memory that the server gets and is charged for; default: its peak x 1.3.",
    ),
    click.option("--prices", metavar="FILE", help="Price table (YAML)."),
    click.option(
        "--algorithm",
        help=f"What proposes configurations: {', '.join(_ALGORITHMS)}; default: a search that starts from what was "
        "measured of other models, where that knows the target's knobs, else auto.",
    ),
    click.option(
        "--command",
        "template",
        metavar="LINE",
        help="Target command: what starts the server, with {port} and {knobs} in it.",
    ),
    click.option("--space", metavar="FILE", help="Target command: its knobs (YAML)."),
    click.option("--ready", metavar="PATH", help="Target command: path that answers 200 when ready; default: /."),
    click.option("--path", metavar="PATH", help="Target command: path of requests; default: /."),
    click.option("--body", metavar="FILE", help="Target command: body of every request; default: the model's inputs."),
    click.option("--name", help="The study's name, to go on with it later; default: the model's."),
    click.option(
        "--seed",
        metavar="N",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Of the search's random choices.",
    ),
)
