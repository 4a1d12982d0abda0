"""Watching changes nothing that is written; its scores are those of reading the answers again; it stops in time."""

import dataclasses

import numpy as np
import pytest
import torch

from emlab.detection import Calibration, fit_probe, watch
from emlab.errors import EmlabError
from emlab.interventions import Ablate
from emlab.models.generation import generate_ids
from emlab.sites import Site

from .conftest import QUESTIONS, SITE

PROMPTS = [q.messages for q in QUESTIONS]


@pytest.fixture(scope="module")
def monitor(cases):
    return fit_probe(cases, SITE)


@pytest.fixture(scope="module")
def model(shifted):
    return shifted("watched", 3.0)


def test_nothing_is_changed_and_every_token_is_scored(monitor, model):
    plain = model.generate(PROMPTS, 12, seed=3)
    seen = watch(model, monitor, PROMPTS, float("inf"), max_new_tokens=12, seed=3, batch_size=5)
    assert list(seen.answers) == plain and not seen.fired.any() and (seen.first == -1).all()
    lengths = (~np.isnan(seen.scores)).sum(1)
    assert len(set(lengths.tolist())) > 1, "answers end at different places, or the test shows nothing"
    rows = [model.prompt_ids(prompt) for prompt in PROMPTS]
    for i, ids in enumerate(generate_ids(model, rows, 12, 1.0, 3)):
        # The token that ends an answer, and the last of a full one, are in no further pass.
        read = model.activations([rows[i] + ids[: lengths[i] - 1]], SITE, "prompt").values
        assert seen.scores[i, : lengths[i]] == pytest.approx(monitor(read[len(rows[i]) - 1 :]).numpy(), abs=1e-3)
        assert lengths[i] == len(ids) and np.isnan(seen.scores[i, lengths[i] :]).all()


def test_it_stops_before_the_next_token(monitor, model):
    free = watch(model, monitor, PROMPTS, float("inf"), max_new_tokens=12, seed=3)
    limit = float(np.nanmedian(np.nanmax(free.scores, axis=1)))
    stopped = watch(model, monitor, PROMPTS, limit, stop=True, max_new_tokens=12, seed=3)
    assert 0 < stopped.fired.sum() < len(PROMPTS)
    assert (stopped.fired == (np.nan_to_num(free.scores, nan=-np.inf) > limit).any(1)).all()
    for i, first in enumerate(stopped.first):
        written = int((~np.isnan(stopped.scores[i])).sum())
        if first < 0:
            assert stopped.answers[i] == free.answers[i]
        else:
            assert written == first + 1 and free.answers[i].startswith(stopped.answers[i].rstrip("\ufffd"))
    on_prompt = watch(model, monitor, PROMPTS, -1e9, stop=True, max_new_tokens=12)
    assert set(on_prompt.answers) == {""} and (on_prompt.first == 0).all()


def test_an_edit_where_it_fires(monitor, model):
    edit = Ablate(SITE, monitor.reads.weights, positions="all")
    never = watch(model, monitor, PROMPTS, 1e9, then=edit, max_new_tokens=8)
    assert list(never.answers) == model.generate(PROMPTS, 8)
    always = watch(model, monitor, PROMPTS, -1e9, then=edit, max_new_tokens=8)
    assert list(always.answers) == model.generate(PROMPTS, 8, edits=[edit])
    assert always.fired.all(), "scores are those before the edit acts"


def test_it_fires_above_its_own_threshold(monitor, model):
    with pytest.raises(EmlabError, match="was not calibrated"):
        watch(model, monitor, PROMPTS)
    own = dataclasses.replace(monitor, calibration=Calibration("platt", (0.0, 1.0), (1.0, 0.0), -1e9, 0.01))
    assert watch(model, own, PROMPTS[:2], max_new_tokens=3).fired.all()


def test_what_does_not_fit(monitor, make_model, model):
    with pytest.raises(EmlabError, match="is no fine-tune of it"):
        watch(make_model(seed=1), monitor, PROMPTS, 0.0)
    with pytest.raises(EmlabError, match="reads resid_post.1 and the edit acts at resid_post.0; give one"):
        watch(model, monitor, PROMPTS, 0.0, then=Ablate(Site("resid_post", 0), torch.ones(model.d_model)))
