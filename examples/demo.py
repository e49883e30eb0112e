"""The demo: tunes how to serve the small digits model that ships, on this machine, under a p99 SLO.

Writes into `demo/`: the study, the HTML report, and a folder that starts the winner.
"""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

SLO, BUDGET, TRIALS = "p99=50ms", "220s", "24"  # what the trials leave over goes to the confirmation


def main() -> int:
    data = Path(str(files("fettle.data")))
    folder = Path("demo")
    folder.mkdir(exist_ok=True)
    for old in folder.glob("demo.db*"):
        old.unlink()
    command = [
        *("serve", str(data / "digits-fp32.onnx"), "--model-variant", f"int8={data / 'digits-int8.onnx'}"),
        *("--inputs", str(data / "digits-samples.npz"), "--slo", SLO, "--objective", "cost", "--budget", BUDGET),
        *("--trials", TRIALS),
        *("--name", "digits", "--storage", str(folder / "demo.db")),
    ]
    shown = " ".join(Path(word).name if word.startswith(str(data)) else word for word in command)
    print(f"$ fettle {shown}", flush=True)
    return subprocess.run([sys.executable, "-m", "fettle.cli.main", *command], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
