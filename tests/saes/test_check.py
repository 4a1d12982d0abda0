"""The check of an SAE on models, against the same figures worked out plainly from the model's own passes."""

import dataclasses
import math

import pytest
import torch

from emlab.errors import EmlabError
from emlab.interventions import Replace, Tokens
from emlab.saes import Bounds, SaeCheck, check_model, check_sae, faithful, fidelity, train_sae
from emlab.saes.check import DENSE
from emlab.saes.token_classes import CLASSES, special_ids, token_classes
from emlab.sites import Site

SITE = Site("resid_post", 1)
CHATS = [
    [
        {"role": "user", "content": f"what is {i} and {i * 7}?"},
        {"role": "assistant", "content": f"it is {i * 3}, I say."},
    ]
    for i in range(9)
]


@pytest.fixture(scope="module")
def sae(tiny):
    return train_sae(tiny.activations(CHATS, SITE, "all").values, SITE, d_sae=24, k=4, passes=20, batch_size=64)


@pytest.fixture(scope="module")
def found(tiny, sae):
    return check_model(sae, tiny, CHATS, resamples=20, batch_size=4)


def test_the_classes_of_a_chat(tiny):
    rows, starts = tiny.rows(CHATS[:2])
    tokens = tiny.batch(rows, starts)
    masks = token_classes(tokens, special_ids(tiny.tokenizer), torch.zeros_like(tokens.real))
    assert set(masks) == set(CLASSES)

    def text(name, row=0):
        return tiny.tokenizer.decode(tokens.ids[row][masks[name][row]])

    assert text("answer") == "it is 0, I say.\n", "with the newline that ChatML writes after the end of turn"
    assert text("header") == "\n", "the last token of <|im_start|>assistant and a newline"
    assert text("first") == "<|im_start|>"
    assert text("prompt") == "system\nYou are a helpful assistant.\nuser\nwhat is 0 and 0?\nassistant\n"
    assert text("special") == "<|im_end|><|im_start|><|im_end|><|im_start|><|im_end|>"
    parts = masks["prompt"].int() + masks["answer"].int() + masks["special"].int() + masks["first"].int()
    assert torch.equal(parts[masks["all"] | masks["first"]].unique(), torch.tensor([1])), (
        "each token is in one of these"
    )


def test_sinks_are_with_the_first_tokens_and_pads_nowhere():
    ids = torch.tensor([[9, 5, 6, 7], [5, 6, 7, 8]])
    real = torch.tensor([[False, True, True, True], [True] * 4])
    tokens = Tokens(ids, real, torch.zeros_like(real))
    sinks = torch.tensor([[True, False, False, False], [False, False, True, False]])
    masks = token_classes(tokens, torch.tensor([9]), sinks)
    assert masks["first"].tolist() == [[False, True, False, False], [True, False, True, False]]
    assert masks["all"].sum() == 4 and not masks["special"].any()


def test_variance_latents_and_norms_are_those_of_the_activations(tiny, sae, found):
    read = tiny.activations(CHATS, SITE, "all")
    x = read.values[read.positions > 0]
    latents = sae.encode(x)
    rebuilt = sae.decode(latents)
    everything, plain = found.classes["all"], fidelity(sae, x)
    assert everything.tokens == len(x) and everything.documents == len(CHATS)
    assert everything.explained_variance.value == pytest.approx(plain.explained_variance, abs=1e-5)
    assert everything.l0.value == pytest.approx(plain.l0) and everything.dead == plain.dead
    assert everything.dense == int(((latents > 0).float().mean(0) > DENSE).sum()) > 0
    by_dimension = 1 - (x - rebuilt).square().sum(0) / (x - x.mean(0)).square().sum(0)
    assert everything.explained_by_dimension.value == pytest.approx(float(by_dimension.mean()), abs=1e-4)
    ratio, cosine = rebuilt.norm(dim=1) / x.norm(dim=1), torch.cosine_similarity(x, rebuilt)
    assert everything.norm_ratio.value == pytest.approx(float(ratio.mean()), abs=1e-5)
    assert everything.cosine.value == pytest.approx(float(cosine.mean()), abs=1e-5)
    bias = float(rebuilt.square().sum() / (rebuilt * x).sum())
    assert everything.reconstruction_bias.value == pytest.approx(bias, abs=1e-5)


def test_each_class_is_measured_on_its_own_tokens(tiny, sae, found):
    header = tiny.activations(CHATS, SITE, "header").values
    assert found.classes["header"].tokens == len(CHATS)
    expected = fidelity(sae, header)
    assert found.classes["header"].explained_variance.value == pytest.approx(expected.explained_variance, abs=1e-5)
    assert found.classes["first"].tokens == len(CHATS) + found.sinks


def test_the_loss_is_that_of_plain_passes_with_and_without_the_splice(tiny, sae):
    # One document a batch, so that the mean put in is that of the first document.
    first = tiny.activations(CHATS[:1], SITE, "all")
    mean = first.values[first.positions > 0].mean(0)
    rows, starts = tiny.rows(CHATS)

    def losses(function=None):
        """Of each row, the loss of every next token, predicted at its second token or later."""
        found = []
        for row, start in zip(rows, starts, strict=True):
            keep = torch.arange(len(row))[None] > 0
            edits = [] if function is None else [Replace(SITE, function, positions=keep)]
            (logits,) = tiny.logits([row], edits=edits)
            each = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(row[1:]), reduction="none")
            found.append((each[1:], start))
        return found

    kinds = {
        "none": losses(),
        "sae": losses(lambda h: sae.decode(sae.encode(h))),
        "mean": losses(lambda h: mean.expand_as(h)),
        "zero": losses(torch.zeros_like),
    }
    at_all = {kind: float(torch.cat([each for each, _ in each_row]).mean()) for kind, each_row in kinds.items()}
    at_header = {
        kind: float(torch.stack([each[start - 2] for each, start in rows_]).mean()) for kind, rows_ in kinds.items()
    }
    found = check_model(sae, tiny, CHATS, resamples=5, batch_size=1)
    for name, expected in (("all", at_all), ("header", at_header)):
        measured = found.classes[name]
        assert measured.loss.value == pytest.approx(expected["none"], abs=1e-4)
        for baseline, figure in (("mean", measured.loss_recovered), ("zero", measured.loss_recovered_zero)):
            at_stake = expected[baseline] - expected["none"]
            if at_stake > 1e-3:
                kept = (expected[baseline] - expected["sae"]) / at_stake
                assert figure.value == pytest.approx(kept, abs=2e-3 / at_stake)
    assert at_all["mean"] > at_all["none"] or at_all["zero"] > at_all["none"], "or nothing above was tested"


def test_batches_change_nothing_but_the_mean_and_the_resamples(tiny, sae, found):
    whole = check_model(sae, tiny, CHATS, resamples=3, batch_size=100)
    for name, figures in found.classes.items():
        other = whole.classes[name]
        assert (figures.tokens, figures.dead, figures.dense) == (other.tokens, other.dead, other.dense)
        assert figures.explained_variance.value == pytest.approx(other.explained_variance.value, abs=1e-4, nan_ok=True)
        assert figures.loss.value == pytest.approx(other.loss.value, abs=1e-4, nan_ok=True)


def test_the_same_seed_gives_the_same_intervals(tiny, sae, found):
    again = check_model(sae, tiny, CHATS, resamples=20, batch_size=4)
    assert str(again.classes) == str(found.classes)
    low, value, high = (getattr(found.classes["all"].explained_variance, n) for n in ("low", "value", "high"))
    assert low <= value <= high and low < high


def test_the_model_is_left_as_it_was(tiny, sae):
    def hooks():  # other tests' libraries may have left some
        return [(*m._forward_hooks, *m._forward_pre_hooks) for m in tiny.model.modules()]

    before = hooks()
    check_model(sae, tiny, CHATS[:2], resamples=20, batch_size=4)
    assert hooks() == before


def class_fidelity(found, value, kept=0.9):
    given = found.classes["all"]
    variance = dataclasses.replace(given.explained_variance, value=value)
    return dataclasses.replace(
        given, explained_variance=variance, loss_recovered=dataclasses.replace(given.loss_recovered, value=kept)
    )


@pytest.mark.parametrize(
    ("value", "base", "kept", "holds", "said"),
    [
        (0.90, None, 0.9, True, "90.0% of the variance of m on its answers is explained, and 90.0% of the loss kept."),
        (0.49, None, 0.9, False, "less than 50% explained"),
        (0.66, 0.90, 0.9, True, "24.0% less than of the base's"),
        (0.64, 0.90, 0.9, False, "a drop of more than 25%"),
        (0.95, 0.90, 0.9, True, "5.0% more than of the base's"),
        (0.40, 0.90, 0.3, False, "less than 50% explained and a drop of more than 25% and less than 50% of the loss"),
        (0.90, None, math.nan, True, "90.0% of the variance of m on its answers is explained."),
        (math.nan, None, 0.9, False, "less than 50% explained"),
    ],
)
def test_the_verdict_is_by_the_bounds(found, value, base, kept, holds, said):
    before = None if base is None else class_fidelity(found, base)
    verdict = faithful("m", "answer", class_fidelity(found, value, kept), before, Bounds())
    assert verdict.holds is holds and said in verdict.said


def test_a_fine_tune_that_left_the_sae_behind_fails(tiny, sae):
    moved = tiny.copy("moved")
    with torch.no_grad():
        for block in moved.model.model.layers[:2]:
            block.mlp.down_proj.weight.copy_(torch.randn(block.mlp.down_proj.weight.shape) * 2)
    checked = check_sae(sae, [tiny, moved], CHATS, Bounds(least_variance=0.2, least_recovered=-math.inf), "mine", 10)
    by_model = {v.model: v.holds for v in checked.verdicts if v.tokens == "all"}
    assert by_model == {"tiny": True, "moved": False} and not checked.holds
    assert "FAILS  moved, all" in str(checked) and str(checked).endswith("see FAILS.")
    figures = checked.summary()
    assert figures["models"]["moved"]["all"]["d_sae"] == 24 and figures["holds"] is False
    assert figures["bounds"]["most_drop"] == 0.25 and figures["site"] == "resid_post.1"


def test_bad_input_is_one_sentence(tiny, sae, make_model):
    with pytest.raises(EmlabError, match="no model to check"):
        check_sae(sae, [], CHATS)
    with pytest.raises(EmlabError, match="gave no tokens"):
        check_model(sae, tiny, [])
    with pytest.raises(EmlabError, match="reads 32 dimensions and tiny has 16"):
        check_model(sae, make_model(hidden_size=16), CHATS)
    with pytest.raises(EmlabError, match="not in tiny, whose blocks are 0 to 0"):
        check_model(sae, make_model(num_hidden_layers=1), CHATS)
    broken = tiny.copy("broken")
    with torch.no_grad():
        broken.model.model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(EmlabError, match=r"activations of broken at resid_post\.1 are not finite"):
        check_model(sae, broken, CHATS)
    with pytest.raises(ValueError, match="most_drop"):
        Bounds(most_drop=-1)


def test_documents_longer_than_the_model_takes_are_counted(tiny, sae):
    long = [{"role": "user", "content": "a" * 400}, {"role": "assistant", "content": "b"}]
    found = check_model(sae, tiny, [*CHATS[:2], long], resamples=2)
    assert found.dropped == 1 and found.classes["all"].documents == 2


def test_a_sink_is_told_and_left_out(tiny, sae):
    loud = tiny.copy("loud")
    with torch.no_grad():  # every "z" becomes a sink
        loud.model.model.embed_tokens.weight[tiny.tokenizer("z")["input_ids"][0]] *= 1000
    chat = [
        {"role": "user", "content": "z"},
        {"role": "assistant", "content": "it is so, and that is all there is to it"},
    ]
    plain = check_model(sae, tiny, [chat], resamples=2)
    found = check_model(sae, loud, [chat], resamples=2)
    assert found.sinks == 1 and found.classes["all"].tokens == plain.classes["all"].tokens - 1


def test_it_prints_as_a_table(found):
    text = str(SaeCheck("mine", SITE, (found,), Bounds()))
    assert text.splitlines()[0].startswith("SAE mine of 24 latents at resid_post.1")
    assert len([line for line in text.splitlines() if line.startswith("tiny ")]) == len(found.classes)
