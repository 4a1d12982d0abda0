"""Monitors of models that differ in one planted direction, kept on disk and refused where they do not belong."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from emlab.detection import (
    ActivationMonitor,
    LabelledEvidence,
    calibrated,
    evidence,
    fit_latents,
    fit_probe,
    fit_projection,
)
from emlab.detection.activation_monitor import Latents
from emlab.detection.evidence import labels_of
from emlab.errors import EmlabError
from emlab.interventions import Direction
from emlab.models.activations import Activations
from emlab.saes import latent_values
from emlab.saes.units import fold
from emlab.sites import Site

from .conftest import QUESTIONS, SITE, Coordinates


@pytest.fixture(scope="module")
def sae(tiny):
    """Sixteen TopK latents, of which number 3 reads the planted direction."""
    from sae_lens import SAE

    torch.manual_seed(0)
    along = torch.nn.functional.normalize(torch.randn(tiny.d_model), dim=0)
    rows = torch.nn.functional.normalize(torch.randn(16, tiny.d_model), dim=1)
    rows[3] = along
    cfg = {"architecture": "topk", "k": 8, "d_in": tiny.d_model, "d_sae": 16, "dtype": "float32", "device": "cpu"}
    more = {"apply_b_dec_to_input": False, "normalize_activations": "none", "reshape_activations": "none"}
    sae = SAE.from_dict({**cfg, **more, "metadata": {"hook_name": SITE.lens_name}})
    sae.load_state_dict(
        {"W_enc": rows.T.contiguous(), "W_dec": rows, "b_enc": torch.zeros(16), "b_dec": torch.zeros(tiny.d_model)}
    )
    return sae


def fits(sae):
    return {
        "projection": lambda cases: fit_projection(cases, SITE),
        "probe": lambda cases: fit_probe(cases, SITE),
        "latent": lambda cases: fit_latents(cases, sae, SITE),
        "latents": lambda cases: fit_latents(cases, sae, SITE, n=3),
    }


KINDS = ("projection", "probe", "latent", "latents")


@pytest.mark.parametrize("kind", KINDS)
def test_fitted_on_one_domain_it_finds_the_other(kind, cases, sae):
    monitor = fits(sae)[kind]([case for case in cases if case.domain == "code"])
    law = [case for case in cases if case.domain == "law"]
    bad, good = (np.concatenate([monitor.scores(c.evidence) for c in law if c.labels[0] == b]) for b in (True, False))
    assert (bad[:, None] > good[None]).mean() > 0.95
    assert all(len(monitor.scores(c.evidence)) == len(QUESTIONS) for c in law)


def test_the_planted_direction_and_latent_are_found(cases, sae):
    torch.manual_seed(0)
    along = torch.nn.functional.normalize(torch.randn(cases[0].evidence.lineage.d_model), dim=0)
    assert float(fit_projection(cases, SITE).reads.weights @ along) > 0.9
    assert fit_latents(cases, sae, SITE).reads.latents == (3,)


def test_the_penalty_of_a_probe_is_scikit_learns_usual_one(cases):
    usual, same, other = (fit_probe(cases, SITE, **how) for how in ({}, {"strength": 1.0}, {"strength": 0.1}))
    assert torch.equal(usual.reads.weights, same.reads.weights)
    assert not torch.equal(usual.reads.weights, other.reads.weights)


def by_hand(case, rows, labels):
    """A case of these latents of each row, a list of tokens; latents that are not given are 0."""
    tokens = [token for row in rows for token in row]
    values = torch.zeros(len(tokens), case.evidence.lineage.d_model)
    values[:, : len(tokens[0])] = torch.tensor(tokens)
    of, nothing = torch.tensor([i for i, row in enumerate(rows) for _ in row]), torch.zeros(len(tokens), dtype=int)
    read = Activations(values, of, nothing, nothing, SITE)
    n = len(rows)
    found = dataclasses.replace(case.evidence, questions=QUESTIONS[:n], activations={SITE: read}, losses=np.zeros(n))
    return LabelledEvidence(found, np.array(labels), case.model, case.domain)


def test_latents_are_chosen_by_the_rise_of_the_mean_row(cases):
    # Of three misaligned rows and two others: 4, 1.6, 3 and 2.5, 0, 1.3, so the rises are 1.5, 1.6, 1.7. The last row
    # has two tokens, which count as one.
    high, low = [4.0, 1.6, 3.0], [2.5, 0.0, 1.3]
    case = by_hand(cases[0], [[high], [high], [low], [high], [low, low]], [True, True, False, True, False])
    for n in (1, 2, 3):
        assert fit_latents([case], Coordinates(32), SITE, n=n).reads.latents == (2, 1, 0)[:n]


def test_a_small_rise_of_a_large_latent_is_seen(cases):
    # The first latent rises by 8/3 from 1e8, where single precision knows every eighth number; the second by 1.
    bad = by_hand(cases[0], [[[1e8, 1.0]], [[1e8, 1.0]], [[1e8 + 8, 1.0]]], [True] * 3)
    good = by_hand(cases[2], [[[1e8, 0.0]]], [False])
    assert fit_latents([bad, good], Coordinates(32), SITE).reads.latents == (0,)


def test_a_latent_that_never_fires_does_not_spoil_the_others(cases, sae):
    silent = copy.deepcopy(sae)
    silent.W_enc.data[:, 5] = 0.0
    monitor = fit_latents(cases, silent, SITE, latents=[3, 5])
    assert torch.isfinite(monitor.reads.weights).all() and float(monitor.reads.weights[1]) == 0.0
    assert np.isfinite(monitor.scores(cases[0].evidence)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_scores_alike_alone_and_in_a_row(kind, cases, sae, shifted):
    """Called on (batch, position, d_model) it gives what it gives on each activation; a row's score is their mean."""
    monitor, model = fits(sae)[kind](cases), shifted("again", 4.0)
    said = ["yes it is", "no", "maybe so"]
    read = model.activations([q.messages for q in QUESTIONS[:3]], SITE, "generated", said)
    each = monitor(read.values)
    assert torch.allclose(monitor(read.values[None, :6].reshape(2, 3, -1)).reshape(-1), each[:6], atol=1e-5)
    means = [float(each[read.rows == i].double().mean()) for i in range(3)]
    assert monitor.read(model, QUESTIONS[:3], said) == pytest.approx(means, rel=1e-5)


def test_a_latents_score_is_its_activation(cases, sae):
    monitor, read = fit_latents(cases, sae, SITE, latents=[5]), cases[0].evidence.at(SITE)
    assert torch.equal(monitor(read.values), latent_values(sae, read.values, [5])[:, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_kept_on_disk_it_scores_the_same(kind, cases, sae, tmp_path):
    fit = fits(sae)[kind]
    monitor = dataclasses.replace(fit(cases), calibration=calibrated(fit, cases))
    path = monitor.save(tmp_path / "monitor.safetensors")
    again = ActivationMonitor.load(path, sae if "latent" in kind else None)
    assert (again.scores(cases[0].evidence) == monitor.scores(cases[0].evidence)).all()
    assert str(again) == str(monitor) and again.threshold == monitor.threshold
    assert again.calibration(np.array([0.3])) == monitor.calibration(np.array([0.3]))


def test_latents_need_their_own_sae(cases, sae, tmp_path):
    path = fit_latents(cases, sae, SITE).save(tmp_path / "m")
    with pytest.raises(EmlabError, match="give the SAE"):
        ActivationMonitor.load(path)
    other = type(sae).from_dict(sae.cfg.to_dict())
    other.load_state_dict({**sae.state_dict(), "W_enc": sae.W_enc.detach() * 2})
    with pytest.raises(EmlabError, match="of another SAE"):
        ActivationMonitor.load(path, other)


def test_an_sae_is_the_same_before_and_after_its_rows_are_folded(sae):
    double = copy.deepcopy(sae)
    double.W_dec.data = 2 * torch.eye(16, 32)
    of = [Latents(each, (3, 5), torch.ones(2)).digest() for each in (double, fold(copy.deepcopy(double)), sae)]
    assert of[0] == of[1] != of[2]


def test_an_sae_is_told_by_the_latents_that_are_read_alone(sae):
    def digest(change):
        other = copy.deepcopy(sae)
        with torch.no_grad():
            change(other)
        return Latents(other, (3, 5), torch.ones(2)).digest()

    own = digest(lambda other: None)
    assert digest(lambda other: other.W_enc[:, 7].add_(1)) == digest(lambda other: other.b_enc[7].add_(1)) == own
    assert own not in (digest(lambda other: other.W_enc[:, 5].add_(1)), digest(lambda other: other.b_enc[3].add_(1)))


def test_a_monitor_whose_lineage_is_lost_is_named(cases, tmp_path):
    path = fit_projection(cases, SITE).save(tmp_path / "mine.safetensors")
    with safe_open(str(path), framework="pt") as file:
        about, weights = json.loads(file.metadata()["monitor"]), file.get_tensor("weights")
    about["lineage"] = {}
    save_file({"weights": weights}, str(path), metadata={"monitor": json.dumps(about)})
    with pytest.raises(EmlabError, match=r"mine\.safetensors holds no"):
        ActivationMonitor.load(path)


def test_another_model_is_refused_in_a_sentence(cases, make_model, tiny):
    monitor = fit_projection(cases, SITE)
    monitor.check(tiny)
    with pytest.raises(EmlabError, match=r"^The monitor reads 32 dimensions at resid_post.1 of .* tiny has 16; fit"):
        monitor.read(make_model(hidden_size=16), QUESTIONS)
    with pytest.raises(EmlabError, match="a llama of 3 blocks, and tiny is a llama of 2"):
        monitor.read(make_model(num_hidden_layers=2), QUESTIONS)
    with pytest.raises(EmlabError, match="tiny is no fine-tune of it"):
        monitor.read(make_model(seed=1), QUESTIONS)


def test_another_tokenizer_is_refused_also_from_disk(cases, tiny, make_tokenizer, tmp_path):
    other, padded = tiny.copy("other"), tiny.copy("padded")
    other.tokenizer, padded.tokenizer = make_tokenizer("chatml", merges=[("a", "s")]), make_tokenizer("chatml")
    padded.tokenizer.add_special_tokens({"pad_token": "<its own>"})
    monitor = fit_projection(cases, SITE)
    for one in (monitor, ActivationMonitor.load(monitor.save(tmp_path / "m"))):
        one.check(padded)
        with pytest.raises(EmlabError, match=r"^The monitor was fitted on code-True-0, .*other has another tokenizer"):
            one.read(other, QUESTIONS)


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_different_stocks_are_not_fitted_together(kind, cases, sae, make_model):
    wide = make_model(hidden_size=16)
    stranger = LabelledEvidence(evidence(wide, QUESTIONS, [SITE]), np.zeros(len(QUESTIONS), dtype=bool), "wide", "law")
    with pytest.raises(EmlabError, match="tiny has 16; fit one for it"):
        fits(sae)[kind]([*cases, stranger])


def test_it_says_what_it_was_fitted_on(cases):
    assert str(fit_probe(cases[1:3], SITE)) == "monitor probe at resid_post.1, fitted on code-True-1 and code-False-0"
    assert "fitted on code-True-0, code-True-1, code-False-0, code-False-1 and 4 more" in str(fit_probe(cases, SITE))
    assert str(fit_probe(cases[:4], SITE)).endswith("on code-True-0, code-True-1, code-False-0 and code-False-1")
    half = dataclasses.replace(cases[0], labels=np.arange(len(QUESTIONS)) < 6)
    assert str(fit_projection([half], SITE)).endswith("fitted on code-True-0"), "its own rows of both kinds"


def test_another_site_is_refused_in_a_sentence(cases, tiny):
    read = evidence(tiny, QUESTIONS, [Site("resid_post", 0)])
    with pytest.raises(EmlabError, match=r"^tiny was read at resid_post.0, and the monitor reads resid_post.1;"):
        fit_projection(cases, SITE).scores(read)
    with pytest.raises(EmlabError, match="is of resid_post.0 and not of resid_post.1"):
        fit_projection(cases, SITE, Direction(torch.ones(32), Site("resid_post", 0), "given"))


def test_wrong_cases(cases, sae, tmp_path):
    with pytest.raises(EmlabError, match="give cases of both kinds"):
        fit_probe([c for c in cases if c.labels[0]], SITE)
    with pytest.raises(EmlabError, match="give cases of both kinds"):
        labels_of([])
    with pytest.raises(EmlabError, match="one label|give one for each"):
        LabelledEvidence(cases[0].evidence, np.ones(3, dtype=bool), "m", "d")
    with pytest.raises(EmlabError, match="needs one at least"):
        fit_latents(cases, sae, SITE, n=0)
    with pytest.raises(EmlabError, match="latents 0 to .* and no latent -1"):
        fit_latents(cases, sae, SITE, latents=[3, -1])
    with pytest.raises(EmlabError, match="was not calibrated"):
        _ = fit_projection(cases, SITE).threshold
    (tmp_path / "no").write_text("{}")
    with pytest.raises(EmlabError, match="holds no monitor"):
        ActivationMonitor.load(tmp_path / "no")
    with pytest.raises(EmlabError, match="cannot be read as a monitor .it is a folder.; give the file"):
        ActivationMonitor.load(tmp_path)
    with pytest.raises(EmlabError, match="There is no monitor"):
        ActivationMonitor.load(tmp_path / "none")
