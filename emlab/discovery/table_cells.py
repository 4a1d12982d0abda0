"""Figures in the tables that are printed."""

from __future__ import annotations

import math
import re


def or_dash(value: float | None, form: str) -> str:
    """The value in a format such as ``+8.3f``, or as wide a dash where there is none (None or NaN)."""
    if value is not None and not math.isnan(value):
        return format(value, form)
    width = re.match(r"[+ ]?(\d*)", form)
    return "-".rjust(int(width[1] or 0) if width else 0)
