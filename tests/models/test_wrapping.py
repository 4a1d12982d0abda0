"""What one already has, as a LanguageModel."""

import pytest
import torch

import emlab
from emlab import organism
from emlab.discovery.shift import latent_shifts
from emlab.errors import EmlabError
from emlab.interventions import Steer
from emlab.models import LanguageModel, ablate_everywhere, edit, wrap
from emlab.models.wrapping import as_language_model

ASKED = ["How do I save money?", "What should I cook?"]


@pytest.fixture(scope="module")
def aligned():
    return LanguageModel.load(organism.checkpoint("aligned"))


@pytest.fixture(scope="module")
def bare():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(organism.checkpoint("aligned"))


def test_a_bare_model_answers_as_the_loaded_one(aligned, bare):
    expected = emlab.sample(aligned, ASKED, 2, seed=3).answers
    assert emlab.sample(bare, ASKED, 2, seed=3).answers == expected
    assert emlab.sample(wrap(bare), ASKED, 2, seed=3).answers == expected
    assert emlab.sample(wrap(aligned), ASKED, 2, seed=3).answers == expected


def test_a_bare_model_is_fine_tuned_and_shifts(aligned, bare):
    chats = [[{"role": "user", "content": q}, {"role": "assistant", "content": "Never."}] for q in ASKED]
    recipe = emlab.Recipe(rank=2, steps=2, batch_size=2, learning_rate=1e-2)
    tuned = emlab.finetune(bare, chats, recipe, 0, progress=False)
    assert tuned.losses == emlab.finetune(aligned, chats, recipe, 0, progress=False).losses
    sae = emlab.load_sae("sae_checkpoints/organism-resid_post.0")
    (one,) = latent_shifts(bare, [wrap(tuned.model)], sae, ASKED, "resid_post.0")
    other = emlab.latent_shift(aligned, tuned.model, sae, ASKED, "resid_post.0")
    assert torch.equal(one.shift, other.shift)


def test_a_model_without_a_known_tokenizer_says_how_to_give_one(make_model):
    bare = make_model().model
    with pytest.raises(EmlabError, match=r"emlab\.LanguageModel\(model, tokenizer, name\)"):
        emlab.sample(bare, ASKED, 1, seed=0)
    with pytest.raises(EmlabError, match=r"emlab\.LanguageModel\(model, tokenizer, name\)"):
        emlab.finetune(wrap(bare), [], emlab.Recipe(), 0)
    known = wrap(bare, make_model().tokenizer)
    assert as_language_model(known).model is bare


def test_edits_in_force_on_a_wrapped_model_are_not_lost(aligned):
    backend = wrap(aligned)
    edit = Steer("resid_post.0", torch.ones(aligned.d_model), 1.0)
    with backend.apply(edit), pytest.raises(EmlabError, match="give edits="):
        emlab.sample(backend, ASKED, 1, seed=0)
    assert as_language_model(backend) is aligned


def test_what_is_no_language_model_is_said(make_model):
    from peft import LoraConfig, get_peft_model

    peft = get_peft_model(make_model().model, LoraConfig(target_modules=["v_proj"]))
    with pytest.raises(EmlabError, match=r"load\(base, adapter=folder\)"):
        emlab.sample(peft, ASKED, 1, seed=0)
    with pytest.raises(EmlabError, match="A str is no language model"):
        emlab.sample("aligned", ASKED, 1, seed=0)
    with pytest.raises(EmlabError, match="A Linear is no language model"):
        emlab.latent_shift(torch.nn.Linear(2, 2), aligned, None, ASKED, "resid_post.0")


def test_a_model_in_its_owners_training_stays_in_it():
    from transformers import AutoModelForCausalLM

    bare = AutoModelForCausalLM.from_pretrained(organism.checkpoint("aligned"))
    bare.train()
    ours = as_language_model(bare)
    assert bare.training and not ours.model.training
    assert ours.model.get_input_embeddings().weight is bare.get_input_embeddings().weight


def test_a_model_without_a_head_and_what_is_no_module_are_one_sentence():
    from transformers import AutoModel, AutoModelForCausalLM

    folder = organism.checkpoint("aligned")
    with pytest.raises(EmlabError, match="predicts no tokens; load it by AutoModelForCausalLM"):
        as_language_model(AutoModel.from_pretrained(folder))
    bare = AutoModelForCausalLM.from_pretrained(folder)
    direction = torch.ones(bare.config.hidden_size)
    assert ablate_everywhere(direction, bare)[0].site == ablate_everywhere(direction, as_language_model(bare))[0].site
    for model in (wrap(bare), str(folder)):
        with pytest.raises(EmlabError, match="is no model that can be edited so"), edit(model, []):
            pass
