"""Batches: every row once a pass, like lengths together, and passes that leave no row out."""

import pytest

from emlab.data import Row
from emlab.training.batches import batches, passes


def rows_of(lengths):
    return [Row([i] * length, [i] * length) for i, length in enumerate(lengths)]


@pytest.mark.parametrize("by_length", [False, True])
def test_every_row_is_seen_once_a_pass(by_length):
    order = batches(rows_of(range(1, 8)), 3, 1, by_length)
    seen = [row.input_ids[0] for _ in range(7) for row in next(order)]  # 21 = three passes
    assert all(sorted(seen[i : i + 7]) == list(range(7)) for i in (0, 7, 14))
    assert seen[:7] != seen[7:14]
    small = batches(rows_of([1, 1]), 5, 1, by_length)
    assert sorted(row.input_ids[0] for _ in range(2) for row in next(small)) == [0] * 5 + [1] * 5


def test_batches_of_like_length_hold_few_pads_and_come_in_any_order():
    rows = rows_of([5 + (7 * i) % 64 for i in range(64)])
    order = batches(rows, 8, 0, by_length=True)
    lengths = [[len(row.input_ids) for row in next(order)] for _ in range(8)]
    assert all(max(batch) - min(batch) == 7 for batch in lengths), "64 different lengths, eight neighbours a batch"
    first = [batch[0] for batch in lengths]
    assert first != sorted(first) and first != sorted(first, reverse=True)


def test_the_order_follows_from_the_seed():
    rows = rows_of(range(1, 21))
    for by_length in (False, True):
        one, again, other = (batches(rows, 4, seed, by_length) for seed in (3, 3, 4))
        drawn = [[next(each) for _ in range(9)] for each in (one, again, other)]
        assert drawn[0] == drawn[1] != drawn[2]


def test_passes_are_sorted_limited_and_whole():
    rows = rows_of([9, 3, 40, 4, 9])
    found = list(passes(rows, vocabulary=10, at_most=2))
    assert [[len(row.input_ids) for row in part] for part in found] == [[3, 4], [9, 9], [40]]
    assert [len(part) for part in passes(rows, vocabulary=10)] == [4, 1], "40 is too unlike 3"
    assert [len(part) for part in passes(rows, vocabulary=2**24)] == [2, 1, 1, 1], "2**27 logits at once"
