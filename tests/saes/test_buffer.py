"""The shuffling buffer: every activation once, mixed, in an order that the seed decides."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emlab.errors import EmlabError
from emlab.saes.buffer import BufferedStream, ShuffleBuffer
from emlab.saes.sources import About
from emlab.saes.stream import ActivationStream, Chunk, Position
from emlab.sites import Site

SITE = Site("resid_post", 1)


class Counting:
    """A stream of the numbers 1, 2, 3…, in chunks of unequal length; its place is in `Position.row`."""

    about = About("plain", SITE, ("numbers",), (1,))
    device = torch.device("cpu")

    def chunks(self, start, repeat):
        n = start.documents + start.row
        while True:
            length = 1 + n % 7
            values = torch.arange(n + 1.0, n + 1 + length)[:, None]
            yield Chunk(values, Position(documents=n), Position(documents=n + length))
            n += length


def served(buffer):
    return [batch.flatten().tolist() for batch in buffer]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 30), st.integers(0, 5))
def test_every_activation_is_served_once(extra, batch, batches, seed):
    total = batch * batches
    found = served(ShuffleBuffer(Counting(), batch + extra, batch, total, seed))
    assert all(len(one) == batch for one in found)
    assert sorted(x for one in found for x in one) == [float(i + 1) for i in range(total)]


@settings(max_examples=40)
@given(st.integers(0, 30), st.integers(4, 40))
def test_it_goes_on_from_its_state_with_the_same_batches(stop, size):
    whole = ShuffleBuffer(Counting(), size, 4, 120, seed=3)
    before = [next(whole) for _ in range(min(stop, 29))]
    state = whole.state()
    state = state._replace(tensors={k: v.clone() for k, v in state.tensors.items()})
    again = ShuffleBuffer(Counting(), size, 4, 120, seed=99, state=state)
    assert served(again) == served(whole) and len(before) == min(stop, 29)


def test_batches_mix_old_and_new():
    found = served(ShuffleBuffer(Counting(), 100, 10, 1000, seed=0))
    later = found[20:80]
    # In the stream's order, the numbers of a batch would span 9; through the buffer they come from all over it.
    assert min(max(one) - min(one) for one in later) > 40
    assert [x for one in found for x in one] != sorted(x for one in found for x in one)


def test_the_seed_decides_the_order():
    one, same, other = (served(ShuffleBuffer(Counting(), 20, 5, 60, seed)) for seed in (1, 1, 2))
    assert one == same != other


def test_statistics_are_of_the_first_fill():
    found = ShuffleBuffer(Counting(), 9, 3, 30, 0).statistics()
    assert found.mean.tolist() == [5.0] and found.norms == (5.0,)


def test_it_holds_no_more_than_its_size(tiny):
    texts = [f"some words, number {i}, to read" for i in range(20)]
    buffer = BufferedStream(ActivationStream(tiny, texts, SITE), 64).batches(16, 320, seed=0)
    assert buffer.state().tensors["buffer"].shape == (64, 32)
    assert sum(len(batch) for batch in buffer) == 320
    assert buffer.counts()["first"] > 0


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(EmlabError, match="holds no batch of 8"):
        ShuffleBuffer(Counting(), 7, 8, 80, 0)
    with pytest.raises(EmlabError, match="no whole number of batches"):
        ShuffleBuffer(Counting(), 16, 8, 81, 0)
