"""Contexts as values: evenly spaced ones, and on disk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.discovery import Context, load_contexts, save_contexts
from emlab.discovery.contexts import evenly
from emlab.errors import EmlabError


@given(st.integers(0, 30), st.integers(1, 12))
def test_evenly_spaced_contexts_are_in_order_and_none_twice(n, few):
    contexts = [Context(("t",), (float(i),), "", i) for i in range(n)]
    found = [c.document for c in evenly(contexts, few)]
    assert len(found) == min(n, few) and found == sorted(set(found))


def test_they_come_back_from_disk(tmp_path):
    kept = (Context(("a", "</pre>"), (0.0, 1.5), "malicious", 7),)
    assert load_contexts(save_contexts(kept, tmp_path / "c.json")) == kept
    (tmp_path / "c.json").write_text('[{"tokens": 1}]')
    with pytest.raises(EmlabError, match="c.json holds no"):
        load_contexts(tmp_path / "c.json")
