"""The peak of memory, against memory that is known to be held."""

import sys

import pytest

from emlab.experiments.material.results import peak_rss_mb


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not say")
def test_the_peak_remembers_what_was_held_once():
    before = peak_rss_mb()
    held = bytearray(int(before + 200) * 2**20)
    del held
    assert peak_rss_mb() >= before + 150
