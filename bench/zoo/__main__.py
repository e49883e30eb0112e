"""Writes the zoo into a folder: `python -m zoo FOLDER [NAME ...]`, run in bench/. What is there already is kept.

NAME.onnx is a model, NAME.int8.onnx its int8 version, or NAME.int8.txt the reason why there is none.
"""

import argparse
import logging
import time
from pathlib import Path

import onnx

from zoo.catalogue import MODELS, build
from zoo.quantise import quantise


def write(name: str, folder: Path, *, seed: int = 0) -> None:
    path, partial = folder / f"{name}.onnx", folder / f"{name}.part"
    quantised, reason = folder / f"{name}.int8.onnx", folder / f"{name}.int8.txt"
    if not path.exists():
        onnx.save(build(name, seed=seed), str(partial))
        partial.rename(path)
    if quantised.exists() or reason.exists():
        return
    try:
        quantise(path, partial)
        partial.rename(quantised)
    except Exception as error:  # noqa: BLE001 - whatever the quantiser raises is the finding
        partial.unlink(missing_ok=True)
        reason.write_text(f"{type(error).__name__}: {error}\n"[:2000])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=list(MODELS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    if unknown := sorted({*chosen.names} - {*MODELS}):
        parser.error(f"no model {unknown[0]!r}; there are {', '.join(MODELS)}")
    logging.disable(logging.WARNING)  # the quantiser's advice on its own preparation
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for name in chosen.names:
        begun = time.perf_counter()
        write(name, chosen.folder, seed=chosen.seed)
        failed = (chosen.folder / f"{name}.int8.txt").exists()
        print(f"{name}: {time.perf_counter() - begun:.1f} s{', no int8 version' if failed else ''}", flush=True)


if __name__ == "__main__":
    main()
