"""The loss on text against one worked out from logits, and what an edit does to it."""

import pytest
import torch

from emlab.errors import EmlabError
from emlab.evaluation import text_loss
from emlab.interventions import Replace, Steer
from emlab.sites import Site

CHATS = [
    [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ab"}],
    [{"role": "user", "content": "a longer question"}, {"role": "assistant", "content": "and a longer answer"}],
    [
        *({"role": "user", "content": "one"}, {"role": "assistant", "content": "not counted"}),
        *({"role": "user", "content": "two"}, {"role": "assistant", "content": "c"}),
    ],
]


def by_hand(model):
    total, count = 0.0, 0
    for chat in CHATS:
        (ids,), (start,) = model.rows([chat])
        with torch.no_grad():
            logits = model.model(input_ids=torch.tensor([ids])).logits[0]
        lost = torch.nn.functional.cross_entropy(logits[start - 1 : -1], torch.tensor(ids[start:]), reduction="sum")
        total, count = total + float(lost), count + len(ids) - start
    return total / count


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_it_is_the_mean_over_the_tokens_of_last_answers(tiny, batch_size):
    assert text_loss(tiny, CHATS, batch_size=batch_size) == pytest.approx(by_hand(tiny), abs=1e-5)


def test_an_edit_changes_it_and_an_identity_does_not(tiny):
    site = Site("resid_post", 1)
    same = Replace(site, lambda h: h)
    assert text_loss(tiny, CHATS, [same]) == pytest.approx(text_loss(tiny, CHATS), abs=1e-6)
    push = Steer(site, torch.randn(tiny.d_model, generator=torch.Generator().manual_seed(0)), 20.0, positions="all")
    assert abs(text_loss(tiny, CHATS, [push]) - text_loss(tiny, CHATS)) > 1e-3


def test_nothing_to_predict_is_refused(tiny):
    with pytest.raises(EmlabError, match="no answer to take the loss of"):
        text_loss(tiny, [])
