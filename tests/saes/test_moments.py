"""Sums and what follows from them, against numbers worked out by hand."""

import math

import pytest
import torch

from emlab.saes.moments import SCALARS, Estimate, Moments, document_weights

X = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 2.0], [1.0, -2.0]])
REBUILT = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 2.0], [1.0, 0.0]])  # the negative part is lost
ROWS = torch.tensor([0, 0, 1, 1])


def scalars(**columns):
    found = torch.zeros(len(X), len(SCALARS))
    for name, values in columns.items():
        found[:, SCALARS.index(name)] = torch.tensor(values)
    return found


def moments(center=(0.0, 0.0), weights=None, **columns):
    weights = torch.ones(1, 2, dtype=torch.float64) if weights is None else weights
    m = Moments(torch.tensor(center, dtype=torch.float64), 3, len(weights) - 1)
    m.add(X, REBUILT, scalars(tokens=[1.0] * 4, **columns), ROWS, weights)
    return m


@pytest.mark.parametrize("center", [(0.0, 0.0), (1.0, 0.0), (1e3, -1e3)])
def test_explained_variance_is_about_the_mean_wherever_the_sums_are_centred(center):
    # mean (1, 0): variance 2 in the first dimension, 8 in the second; error 4, all in the second.
    m = moments(center)
    assert m.explained_variance().value == pytest.approx(1 - 4 / 10)
    assert m.explained_by_dimension().value == pytest.approx((1 + (1 - 4 / 8)) / 2)
    assert (m.tokens, m.documents) == (4, 2)


def test_reconstruction_bias_is_below_one_where_the_reconstruction_is_shrunk():
    # x̂ = x / 2: Σ‖x̂‖² = ¼ Σ‖x‖² and Σ x̂·x = ½ Σ‖x‖², so γ = ½.
    halves = X / 2
    m = moments(rebuilt_square=halves.square().sum(1).tolist(), rebuilt_dot=(halves * X).sum(1).tolist())
    assert m.reconstruction_bias().value == pytest.approx(0.5)


def test_loss_recovered_is_the_share_of_what_is_at_stake():
    losses = {"loss": [1.0, 1.0, 2.0, 0.0], "loss_rebuilt": [1.5, 1.5, 2.0, 0.0], "loss_mean": [3.0, 3.0, 2.0, 0.0]}
    m = moments(predicted=[1.0, 1.0, 1.0, 0.0], loss_zero=[1.0, 1.0, 2.0, 0.0], **losses)
    assert m.loss_recovered("loss_mean").value == pytest.approx((8 - 5) / (8 - 4))
    assert math.isnan(m.loss_recovered("loss_zero").value), "where nothing is at stake there is nothing to recover"
    assert m.mean("loss", over="predicted").value == pytest.approx(4 / 3)


def test_a_resample_counts_documents_as_its_weights_say():
    # The second document twice and the first not at all is that document alone: variance 8, error 4.
    weights = torch.tensor([[1.0, 1.0], [0.0, 2.0], [2.0, 0.0]], dtype=torch.float64)
    found = moments(weights=weights)
    assert found.explained_variance().value == pytest.approx(0.6)
    both = sorted((1 - 4 / 8, 1.0))
    low, high = torch.quantile(torch.tensor(both), torch.tensor([0.025, 0.975])).tolist()
    assert (found.explained_variance().low, found.explained_variance().high) == pytest.approx((low, high))


def test_parts_add_up_to_the_whole():
    weights = torch.tensor([[1.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    whole, parts = moments(weights=weights), Moments(torch.zeros(2, dtype=torch.float64), 3, 1)
    for row in (0, 1):
        of = row == ROWS
        columns = scalars(tokens=[1.0] * 4)[of]
        parts.add(X[of], REBUILT[of], columns, torch.zeros(2, dtype=torch.long), weights[:, row : row + 1])
    assert torch.allclose(parts.sums, whole.sums)
    assert parts.explained_variance() == whole.explained_variance()


def test_tokens_that_are_all_the_same_have_no_variance_to_explain():
    m = Moments(torch.tensor([1.0, 1.0], dtype=torch.float64), 1, 0)
    same = torch.full((4, 2), 3.1)
    m.add(same, same * 0, scalars(tokens=[1.0] * 4), ROWS, torch.ones(1, 2, dtype=torch.float64))
    assert math.isnan(m.explained_variance().value) and math.isnan(m.explained_by_dimension().value)
    assert str(m.explained_variance()) == "–"


def test_the_interval_covers_as_often_as_it_says():
    """Of means over documents: 95% intervals hold the truth in 95% of experiments, as far as 200 of them tell."""
    held = 0
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        level = torch.randn(40, 1, generator=generator) + 5.0  # a document's own level, and four tokens around it
        active = (level + 0.1 * torch.randn(40, 4, generator=generator)).flatten()
        m = Moments(torch.zeros(1, dtype=torch.float64), 1, 200)
        terms = torch.zeros(160, len(SCALARS))
        terms[:, SCALARS.index("tokens")], terms[:, SCALARS.index("active")] = 1.0, active
        rows = torch.arange(40).repeat_interleave(4)
        m.add(torch.ones(160, 1), torch.ones(160, 1), terms, rows, document_weights(40, 200, generator))
        found = m.mean("active")
        held += found.low <= 5.0 <= found.high
    assert 0.88 <= held / 200 <= 0.98


def test_weights_count_every_document_once_and_are_poisson_below():
    weights = document_weights(500, 400, torch.Generator().manual_seed(0))
    assert torch.equal(weights[0], torch.ones(500, dtype=torch.float64))
    assert weights[1:].mean() == pytest.approx(1.0, abs=0.01) and weights[1:].var() == pytest.approx(1.0, abs=0.02)


def test_one_document_gives_no_interval():
    m = Moments(torch.zeros(2, dtype=torch.float64), 1, 10)
    m.add(X, X, scalars(tokens=[1.0] * 4), torch.zeros(4, dtype=torch.long), torch.ones(11, 1, dtype=torch.float64))
    assert m.explained_variance().value == 1.0 and math.isnan(m.explained_variance().low)
    assert str(Estimate(0.5, math.nan, math.nan)) == "0.500"
