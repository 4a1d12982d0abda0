"""Figures in printed tables, and the dash where there is none."""

import math

from emlab.discovery.table_cells import or_dash


def test_what_is_missing_is_a_dash_of_the_same_width():
    assert [or_dash(value, "+8.3f") for value in (1.5, math.nan, None)] == ["  +1.500", "       -", "       -"]
    assert [or_dash(value, ".1%") for value in (0.25, math.nan)] == ["25.0%", "-"]
    assert or_dash(math.nan, "5") == "    -"
