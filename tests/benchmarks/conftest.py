"""The benchmarks are scripts beside the package, which import one another by their bare names."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
