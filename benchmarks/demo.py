"""How long and how much memory the demo takes, and how fast the command answers.

    python benchmarks/demo.py            # measure, and write results/demo.json
    python benchmarks/demo.py --repeats 3

The demo runs as a user runs it, in a process of its own from the shipped checkpoints; its peak is the resident memory
of that process. `emlab --help` and `import emlab` are medians over several runs, each beside `python -c pass` in the
same round, since machines are shared and noisy.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _about import about

from emlab import artifacts

ROOT = Path(__file__).parents[1]
MUST = {"demo_seconds": 300, "demo_peak_mb": 3000, "help_seconds": 0.5, "import_seconds": 0.3}
HEAVY = ("torch", "transformers", "sae_lens", "plotly", "numpy")


def timed(command: list[str]) -> float:
    """Seconds that a command takes; its output goes nowhere."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - begun


def demo() -> dict[str, object]:
    """One demo from start to end."""
    with tempfile.TemporaryDirectory() as folder:
        config = str(ROOT / "experiments" / "persona_features.yaml")
        seconds = timed([sys.executable, "-m", "emlab", "run", config, "--runs", folder])
        (summary,) = Path(folder).glob("*/summary.json")
        inside = artifacts.read_json(summary)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
    return {"seconds": seconds, "peak_mb": peak, "stage_seconds": inside["stage_seconds"]}


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="demos to run (1)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "demo.json", metavar="FILE")
    options = parser.parse_args()
    rounds = []
    for _ in range(7):
        rounds.append(
            {
                "python": timed([sys.executable, "-c", "pass"]),
                "import": timed([sys.executable, "-c", "import emlab"]),
                "help": timed([sys.executable, "-m", "emlab", "--help"]),
            }
        )
    loaded = subprocess.run(
        [sys.executable, "-c", f"import emlab, sys; print([m for m in {HEAVY} if m in sys.modules])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    demos = [demo() for _ in range(options.repeats)]
    result = {
        "must": MUST,
        "demo_seconds": statistics.median(float(str(d["seconds"])) for d in demos),
        "demo_peak_mb": max(float(str(d["peak_mb"])) for d in demos),
        "help_seconds": statistics.median(r["help"] for r in rounds),
        "import_seconds": statistics.median(r["import"] for r in rounds),
        "python_seconds": statistics.median(r["python"] for r in rounds),
        "heavy_modules_after_import": loaded,
        "demos": demos,
        "rounds": rounds,
        **about("python benchmarks/demo.py", ()),
    }
    artifacts.write_json(options.out, result)
    print(json.dumps({k: v for k, v in result.items() if k not in ("demos", "rounds")}, indent=2))


if __name__ == "__main__":
    main()
