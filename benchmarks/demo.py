"""How long and how much memory the demo takes, and how fast the command answers.

    python benchmarks/demo.py            # measure, and write results/demo.json
    python benchmarks/demo.py --repeats 1

The demo runs as a user runs it, in a process of its own from the shipped checkpoints; its peak is the resident memory
of that process, the largest of all demos. `emlab --help` and `import emlab` are medians over several runs, each beside
`python -c pass` in the same round, in an order drawn anew.
"""

from __future__ import annotations

import argparse
import ast
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _about import ROOT, asked, at_most, quiet, spread, write

from emlab import artifacts

MUST = {"demo_seconds": 300, "demo_peak_mb": 3000, "help_seconds": 0.5, "import_seconds": 0.3}
HEAVY = ("torch", "transformers", "sae_lens", "plotly", "numpy")


def timed(command: list[str]) -> float:
    """Seconds that a command takes; its output goes nowhere."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - begun


def demo() -> dict[str, Any]:
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
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="demos to run (3)")
    options = asked(parser, "demo")
    load, rng = quiet(options), random.Random(0)
    ways = {"python": ["-c", "pass"], "import": ["-c", "import emlab"], "help": ["-m", "emlab", "--help"]}
    rounds = [{way: timed([sys.executable, *ways[way]]) for way in rng.sample(list(ways), 3)} for _ in range(15)]
    loaded = subprocess.run(
        [sys.executable, "-c", f"import emlab, sys; print([m for m in {HEAVY} if m in sys.modules])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    demos = [demo() for _ in range(options.repeats)]
    seconds, peak = [one["seconds"] for one in demos], max(one["peak_mb"] for one in demos)
    each = {way: [one[way] for one in rounds] for way in ways}
    figures = {
        "demo_seconds": spread(seconds)["median"],
        "demo_peak_mb": peak,
        **{f"{way}_seconds": spread(each[way])["median"] for way in ways},
        "spread": {"demo": spread(seconds), **{way: spread(each[way]) for way in ways}},
        "heavy_modules_after_import": loaded,
        "demos": demos,
        "rounds": rounds,
    }
    bounds = [
        at_most("the demo, seconds", seconds, MUST["demo_seconds"]),
        at_most("its peak memory, MB", peak, MUST["demo_peak_mb"]),
        at_most("emlab --help, seconds", each["help"], MUST["help_seconds"]),
        at_most("import emlab, seconds", each["import"], MUST["import_seconds"]),
        at_most("heavy modules that it loads", len(ast.literal_eval(loaded)), 0),
    ]
    write(options.out, MUST, figures, bounds, load, ("transformers", "peft", "sae-lens"))


if __name__ == "__main__":
    main()
