"""What ships with emlab beside its code: the experiments' configs and the trained SAEs, found from any folder.

They lie at the top of a checkout, as ``experiments/`` and ``sae_checkpoints/``. In what is installed from a wheel they
lie in the package. A path such as ``experiments/persona_features.yaml`` names them in both.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path, PurePath

from emlab import artifacts

FOLDERS = ("experiments", "sae_checkpoints")
"""What ships, by its name at the top of a checkout."""

PACKED = Path(__file__).resolve().parent / "shipped_files"
"""Where a wheel has it (setup.py puts it there); a checkout has no such folder."""


def shipped_files() -> Path:
    """The folder in which `FOLDERS` lie: inside an installed package, or at the top of a checkout."""
    return PACKED if PACKED.is_dir() else PACKED.parents[1]


def located(path: str | os.PathLike[str]) -> Path:
    """The file or folder at `path`; where nothing is there, emlab's own of that name, which is said in one line.

    A path of neither comes back as it is: whoever reads it says that it does not exist.
    """
    given = artifacts.place(path)
    parts = PurePath(given).parts
    if given.is_absolute() or artifacts.is_there(given) or not parts or parts[0] not in FOLDERS or ".." in parts:
        return given
    own = shipped_files() / given
    if not artifacts.is_there(own):
        return given
    _say(given.as_posix())
    return own


@functools.cache
def _say(name: str) -> None:
    """Once a process."""
    print(f"There is no {name} in this folder, so the one that ships with emlab is read.", file=sys.stderr, flush=True)
