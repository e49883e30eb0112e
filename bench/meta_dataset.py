"""Measures the meta-dataset: python bench/meta_dataset.py FOLDER [--minutes N] [--quick]. Wants a quiet machine.

Builds the zoo in FOLDER (2 GB, two minutes), measures it into FOLDER/rows.jsonl, and makes docs/meta_dataset.md and the
compressed file that ships from the rows. Started again, it goes on where it was, after a kill, too: 60 points of every
model come first, in turn; then the full grids of twelve; then their best points again.
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import meta_card
from zoo.__main__ import write
from zoo.catalogue import MODELS

from fettle.executors.process import ProcessExecutor
from fettle.host.machine import machine
from fettle.problems.serve.collect import campaign, rows
from fettle.problems.serve.collect.plan import Settings

QUICK = ("resnet20_small", "bert_mini", "mlp_deep")
_EVERY = 50  # rows between two lines


def show(progress: campaign.Progress) -> None:
    if progress.done % _EVERY == 0:
        print(f"{progress.done}/{progress.total} rows, {progress.seconds / 60:.1f} min", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--quick", action="store_true", help="three models, 8 minutes; the card stays in FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    models = chosen.folder / ("quick" if chosen.quick else "models")
    models.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.WARNING)  # the quantiser's advice on its own preparation
    for name in QUICK if chosen.quick else MODELS:
        write(name, models, seed=chosen.seed)
    settings = Settings(points=40, full=1, repeats=2) if chosen.quick else Settings(seed=chosen.seed)
    out = models.with_name("quick.jsonl" if chosen.quick else "rows.jsonl")
    executor = ProcessExecutor(workers=1, threads=1)
    try:
        found = campaign.collect(
            models,
            out,
            executor=executor,
            machine=machine(("onnxruntime",)),
            settings=settings,
            calm=campaign.Calm(tries=1) if chosen.quick else campaign.Calm(),
            seconds=60.0 * min(chosen.minutes, 8.0 if chosen.quick else chosen.minutes),
            watch=show,
        )
    finally:
        executor.close()
    print(f"{found.measured} rows in {found.seconds / 60:.1f} min, {found.disturbed} disturbed, {found.failed} failed")
    card = chosen.folder / "card.md" if chosen.quick else meta_card.CARD
    card.write_text(meta_card.card(out), encoding="utf-8")
    if not chosen.quick:
        print(f"{meta_card.SHIPPED.name}: {rows.pack(out, meta_card.SHIPPED) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
