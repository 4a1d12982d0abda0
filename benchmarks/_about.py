"""What every result file says of how and where it was measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from emlab.provenance import environment


def about(command: str, libraries: Iterable[str]) -> dict[str, Any]:
    """The command, the date, the machine as it is now, and the versions of Python, emlab, torch and `libraries`."""
    found = environment()
    return {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "cpu": processor(),
            "cpu_count": found["cpu_count"],
            "machine": found["machine"],
            "system": platform.system(),
            "torch_threads": torch.get_num_threads(),
            "load_average_at_the_end": os.getloadavg() if hasattr(os, "getloadavg") else None,
        },
        "versions": {
            "python": found["python"],
            **{name: found["packages"].get(name) for name in dict.fromkeys(("emlab", "torch", *libraries))},
        },
    }


def processor() -> str:
    """The processor's name where Linux tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
