"""Evidence is gathered in small passes, and a row's value is the mean of its tokens'."""

import dataclasses

import numpy as np
import pytest
import torch

from emlab.detection import evidence
from emlab.evaluation.loss import row_losses

from .conftest import QUESTIONS, SITE, passes


def test_no_more_rows_go_through_the_model_at_a_time_than_it_is_told(tiny):
    whole = evidence(tiny, QUESTIONS, [SITE])
    with passes(tiny) as seen:
        parts = evidence(tiny, QUESTIONS, [SITE], batch_size=5)
    assert seen == [5, 5, 2, 5, 5, 2], "for the site, and for the losses"
    assert parts.losses == pytest.approx(whole.losses, abs=1e-4)
    assert parts.losses == pytest.approx(row_losses(tiny, [q.messages for q in QUESTIONS]).numpy(), abs=1e-4)


def test_a_row_is_the_mean_of_its_own_tokens(tiny):
    read = evidence(tiny, QUESTIONS[:2], [SITE], ["abc", "d"])
    values = torch.tensor([[1.0, 0.0], [2.0, 0.0], [6.0, 3.0], [5.0, 5.0]])
    assert read.at(SITE).rows.tolist() == [0, 0, 0, 1]
    assert read.row_means(SITE, values).tolist() == [[3, 1], [5, 5]]
    assert np.array_equal(read.row_means(SITE, values[:, 0]), [3, 5])
    back = dataclasses.replace(read.at(SITE), rows=torch.tensor([1, 0, 1, 1]))
    mixed = dataclasses.replace(read, activations={SITE: back})
    assert mixed.row_means(SITE, values[:, 0]).tolist() == [2, 4]
