"""What reading data has to say and no error says: what was left out, left aside or taken for something."""

from __future__ import annotations

import sys


def tell(line: str) -> None:
    """Say one line on the terminal."""
    print(line, file=sys.stderr, flush=True)
