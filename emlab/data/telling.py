"""What reading data has to say and no error says: what was left out, left aside or taken for something."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from emlab.errors import visible


def tell(line: str) -> None:
    """Say one line on the terminal."""
    print(visible(line), file=sys.stderr, flush=True)


def some(names: Iterable[str], most: int = 20) -> str:
    """The first of many names, for a sentence."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
