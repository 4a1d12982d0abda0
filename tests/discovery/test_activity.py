"""Activity by kind of document: the figures by hand, whatever the blocks."""

import math

import pytest
import torch

from emlab import artifacts
from emlab.discovery import Activity
from emlab.discovery.activity import MOST_VALUES, ActivityTally
from emlab.errors import EmlabError
from emlab.evaluation import wilson
from emlab.records import restored

# Document 0 (x): 2, 0, 4 of three tokens; 1 (y): 0, 0; 2 (x): 3 of one; and a token of 2 that does not count.
VALUES = torch.tensor([2.0, 0, 4, 0, 0, 3, 0])[:, None]
COUNTED = torch.tensor([True] * 6 + [False])
ROWS = torch.tensor([0, 0, 0, 1, 1, 2, 2])
DOCUMENTS = torch.tensor([0, 1, 2])
LABELS = ({"kind": "x"}, {"kind": "y"}, {"kind": "x", "more": "z"})


def test_figures_by_hand():
    tally = ActivityTally(1)
    tally.add(VALUES, COUNTED, ROWS, DOCUMENTS, LABELS)
    everywhere, x, y, z = tally.result(0)
    # Means of the documents: 2, 0 and 3.
    assert (everywhere.column, everywhere.documents, everywhere.tokens, everywhere.active) == ("", 3, 6, 3)
    assert everywhere.fires == wilson(2, 3) and everywhere.peak == 4.0
    assert everywhere.mean == pytest.approx(5 / 3)
    spread = ((2 - 5 / 3) ** 2 + (5 / 3) ** 2 + (3 - 5 / 3) ** 2) / 2
    assert everywhere.standard_error == pytest.approx(math.sqrt(spread / 3))
    low, high = everywhere.interval
    assert (low, high) == pytest.approx(
        (5 / 3 - 4.302653 * math.sqrt(spread / 3), 5 / 3 + 4.302653 * math.sqrt(spread / 3))
    )
    assert (x.column, x.value, x.documents, x.tokens, x.mean, x.standard_error) == ("kind", "x", 2, 4, 2.5, 0.5)
    assert (y.value, y.fires, y.mean, y.peak) == ("y", wilson(0, 1), 0.0, 0.0)
    assert math.isnan(y.standard_error) and all(map(math.isnan, y.interval))
    assert (z.column, z.value, z.documents) == ("more", "z", 1)
    assert "kind x" in str(x) and "2 documents" in str(x)


def test_a_document_may_go_on_in_the_next_block():
    whole, cut = ActivityTally(1), ActivityTally(1)
    whole.add(VALUES, COUNTED, ROWS, DOCUMENTS, LABELS)
    for part in (slice(0, 1), slice(1, 2), slice(2, 4), slice(4, 7)):
        numbers, rows = torch.unique(ROWS[part], return_inverse=True)
        cut.add(VALUES[part], COUNTED[part], rows, numbers, tuple(LABELS[i] for i in numbers.tolist()))
    assert str(cut.result(0)) == str(whole.result(0))


def test_it_comes_back_from_json():
    tally = ActivityTally(1)
    tally.add(VALUES, COUNTED, ROWS, DOCUMENTS, LABELS)
    for one in tally.result(0):
        assert str(restored(artifacts.plain(one), Activity)) == str(one)


def test_a_column_of_texts_is_no_label():
    tally, n = ActivityTally(1), MOST_VALUES + 2
    labels = tuple({"id": str(i)} for i in range(n))
    with pytest.raises(EmlabError, match="column 'id' has more than 100 values"):
        tally.add(torch.ones(n, 1), torch.ones(n, dtype=torch.bool), torch.arange(n), torch.arange(n), labels)
