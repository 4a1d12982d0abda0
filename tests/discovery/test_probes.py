"""Linear probes, random nulls and cosines, on activations that are written down."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from emlab.discovery import Cosines, convergence, cosines, linear_probe, matched_directions
from emlab.errors import EmlabError
from emlab.interventions import Direction, random_directions
from emlab.models import Activations
from emlab.sites import Site

SITE = Site("resid_post", 1)


def activations(values, rows=None, site=SITE):
    rows = torch.arange(len(values)) if rows is None else rows
    return Activations(values, rows, rows, rows, site)


def two_kinds(gap, n=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    push = torch.tensor([gap, 0.0, 0.0])
    # The second dimension is a hundred times larger and tells nothing.
    scale = torch.tensor([1.0, 100.0, 1.0])
    return [activations(torch.randn(n, 3, generator=generator) * scale + sign * push) for sign in (1, -1)]


def test_it_finds_what_tells_the_kinds_apart():
    positive, negative = two_kinds(4.0)
    probe = linear_probe(positive, negative, seed=1)
    assert probe.accuracy == 1.0 and probe.held_out == 30 and probe.learned == 90
    assert float(probe.direction.vector[0]) > 0.97  # the noise of 90 draws is left
    right = torch.cat([probe(positive.values) > 0, probe(negative.values) <= 0])
    assert float(right.double().mean()) == pytest.approx((30 + 90 * probe.train_accuracy) / 120)


def test_it_is_scikit_learns_logistic_regression_of_standardised_values():
    positive, negative = two_kinds(1.0, n=4)
    values = torch.cat([positive.values, negative.values]).double().numpy()
    labels = [True] * 4 + [False] * 4
    prompts = torch.randperm(4, generator=torch.Generator().manual_seed(2))
    learns = [i for i in range(8) if i % 4 != prompts[0]]  # a quarter of the prompts is held out, of either kind
    scaler = StandardScaler().fit(values[learns])
    fitted = LogisticRegression(C=0.5, max_iter=5000).fit(scaler.transform(values[learns]), [labels[i] for i in learns])
    weights = torch.from_numpy(fitted.coef_[0] / scaler.scale_)
    probe = linear_probe(positive, negative, held_out=0.25, strength=0.5, seed=2)
    assert torch.allclose(probe.direction.vector.double(), weights / weights.norm(), atol=1e-6)
    assert probe.bias == pytest.approx(float(fitted.intercept_[0]) - float(weights @ torch.from_numpy(scaler.mean_)))


def test_what_does_not_vary_has_no_weight():
    positive, negative = two_kinds(4.0)
    still = torch.cat([positive.values, torch.full((60, 1), 7.0)], dim=1)
    probe = linear_probe(
        activations(still), activations(torch.cat([negative.values, torch.full((60, 1), 7.0)], 1)), seed=1
    )
    bare = linear_probe(positive, negative, seed=1)
    assert torch.allclose(probe.direction.vector, torch.cat([bare.direction.vector, torch.zeros(1)]), atol=1e-6)
    assert probe.bias == pytest.approx(bare.bias, abs=1e-6)


def test_noise_is_told_at_chance_by_held_out_prompts():
    # Twenty tokens of each prompt, and as many dimensions as prompts: what is learned by heart does not carry over.
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(12).repeat_interleave(20)
    of_prompt = torch.randn(2, 12, 40, generator=generator)
    kinds = [activations(of_prompt[i][rows] + 0.01 * torch.randn(240, 40, generator=generator), rows) for i in (0, 1)]
    probe = linear_probe(*kinds, seed=0)
    assert probe.train_accuracy == 1.0 and probe.accuracy < 0.9


def test_the_seed_decides_the_split():
    kinds = two_kinds(0.3)
    one, same = (linear_probe(*kinds, seed=3) for _ in range(2))
    assert torch.equal(one.direction.vector, same.direction.vector) and one.accuracy == same.accuracy


def test_probes_refuse_what_they_cannot_learn():
    few = activations(torch.randn(3, 2))
    with pytest.raises(EmlabError, match="4 prompts or more, not 3"):
        linear_probe(few, few)
    positive, negative = two_kinds(1.0)
    with pytest.raises(EmlabError, match="read the same site"):
        linear_probe(positive, activations(negative.values, site=Site("resid_post", 0)))
    with pytest.raises(EmlabError, match="share 1"):
        linear_probe(positive, negative, held_out=1)


def test_matched_directions_have_the_activations_covariance():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(500, 3, generator=generator) @ torch.tensor([[3.0, 1, 0], [0, 1, 0], [0, 0, 0.1]]) + 5.0
    centred = values - values.mean(0)
    weights = torch.randn(20000, 500, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    draws = weights @ centred.double() / 499**0.5
    found = matched_directions(20000, values, SITE, 7, norm=2.5)
    assert torch.allclose(found[5].vector, torch.nn.functional.normalize(draws[5], dim=0).float(), atol=1e-5)
    assert torch.allclose(draws.T.cov(), centred.double().T.cov(), atol=0.3)
    assert found[0].norm == 2.5 and float(found[0].vector.norm()) == pytest.approx(1.0)
    with pytest.raises(EmlabError, match="all the same"):
        matched_directions(2, torch.ones(4, 3), SITE, 0)
    with pytest.raises(EmlabError, match="two tokens or more"):
        matched_directions(2, torch.ones(1, 3), SITE, 0)
    (of_two,) = matched_directions(1, torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]]), SITE, 0)
    assert of_two.vector.abs().tolist() == [0, 1, 0]


def test_cosines_by_hand(tmp_path):
    found = cosines([Direction(torch.tensor(v), SITE, n) for v, n in (([3.0, 4.0], "a"), ([1.0, 0.0], 'b, "c"'))])
    assert found.values.tolist() == [[1.0, pytest.approx(0.6)], [pytest.approx(0.6), 1.0]]
    assert found.between("a at resid_post.1", 'b, "c" at resid_post.1') == pytest.approx(0.6)
    back = Cosines.load(found.save(tmp_path / "c.json"))
    assert back.names == found.names and torch.equal(back.values, found.values)
    import csv

    with open(tmp_path / "c.csv", newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == ["direction", *found.names] and table[2][:2] == [found.names[1], "0.6"]
    with pytest.raises(EmlabError, match="no direction 'x'"):
        found.between("x", "a at resid_post.1")
    with pytest.raises(EmlabError, match="widths 2, 3"):
        cosines([Direction(torch.ones(2), SITE, "a"), Direction(torch.ones(3), SITE, "b")])
    (tmp_path / "d.json").write_text('{"names": ["a"], "values": [[1, 2]]}')
    with pytest.raises(EmlabError, match="holds no Cosines"):
        Cosines.load(tmp_path / "d.json")


def test_rounding_makes_no_cosine_of_more_than_one():
    twice = [d for d in random_directions(50, 100, SITE, 0) for _ in range(2)]
    vectors = torch.stack([d.vector for d in twice])
    assert float((vectors @ vectors.T).max()) > 1.0, "the test needs products that are rounded up"
    found = cosines(twice).values
    assert float(found.max()) == 1.0 and bool((cosines([twice[0], *(-d for d in twice)]).values >= -1.0).all())


def test_convergence_by_hand():
    same = [Direction(torch.tensor(v), SITE, "m") for v in ([1.0, 0.0], [0.6, 0.8], [0.0, 1.0])]
    found = convergence(same, random_directions(30, 200, SITE, 0))
    assert (found.mean, found.least, found.pairs) == (pytest.approx((0.6 + 0.8 + 0) / 3), pytest.approx(0.0), 3)
    # Between random directions of width 200 cosines have the deviation 1/√200.
    assert found.null == pytest.approx(1.96 / 200**0.5, rel=0.15)
    with pytest.raises(EmlabError, match="not 1"):
        convergence(same[:1])
