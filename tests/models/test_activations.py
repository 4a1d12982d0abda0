"""Activations and logits: left padding changes nothing, and each value is of the token it says."""

import pytest
import torch

from emlab.errors import EmlabError
from emlab.interventions import Ablate, Steer, random_directions
from emlab.sites import Site

SITE = Site("resid_post", 1)
PROMPTS = ["Hi", "What should I do with my money?", [5, 9, 100], [{"role": "user", "content": "a\nb"}]]
ANSWERS = ["Yes.\nNo.", "x", "\n", "ab\n\ncd"]


def test_left_padding_does_not_change_the_logits(tiny):
    together = tiny.logits(PROMPTS)
    for prompt, logits in zip(PROMPTS, together, strict=True):
        ids = torch.tensor([tiny.prompt_ids(prompt)])
        with torch.no_grad():
            assert torch.allclose(logits, tiny.model(ids).logits[0], atol=1e-4)


@pytest.mark.parametrize("positions", ["all", "prompt", "generated", "header", "sentence"])
def test_edits_never_touch_pads(tiny, positions):
    directions = random_directions(2, 32, SITE, seed=0)
    edits = [
        Steer(SITE, directions[0], 4.0, positions=positions),
        Ablate(Site("attn_out", 2), directions[1], positions=positions),
    ]
    together = tiny.logits(PROMPTS, ANSWERS, edits)
    for i, logits in enumerate(together):
        assert logits.isfinite().all()
        assert torch.allclose(logits, tiny.logits(PROMPTS[i : i + 1], ANSWERS[i : i + 1], edits)[0], atol=1e-4)


@pytest.mark.parametrize("site", ["resid_pre.0", "resid_post.1", "attn_out.2", "mlp_out.0"])
def test_values_in_batches_equal_one_by_one(tiny, site):
    read = tiny.activations(PROMPTS, site, "all", batch_size=2)
    for i, prompt in enumerate(PROMPTS):
        alone = tiny.activations([prompt], site, "all")
        mine = read.rows == i
        assert torch.allclose(read.values[mine], alone.values, atol=1e-4)
        assert read.positions[mine].tolist() == list(range(len(alone)))
        assert read.tokens[mine].tolist() == tiny.prompt_ids(prompt)
    assert str(read) == f"{len(read)} activations of width 32 at {site}"


def test_values_are_hugging_faces_hidden_states(tiny):
    ids = torch.tensor([tiny.prompt_ids("Hi")])
    with torch.no_grad():
        states = tiny.model(ids, output_hidden_states=True).hidden_states  # 0 is the embedding, i + 1 follows block i
    assert torch.allclose(tiny.activations(["Hi"], "resid_post.1", "all").values, states[2][0], atol=1e-5)
    assert torch.allclose(tiny.activations(["Hi"], "resid_pre.0", "all").values, states[0][0], atol=1e-5)


def test_which_tokens_are_read(tiny):
    header = tiny.activations(PROMPTS, SITE)
    assert header.rows.tolist() == [0, 1, 2, 3]
    assert header.positions.tolist() == [len(tiny.prompt_ids(p)) - 1 for p in PROMPTS]
    answers = tiny.activations(PROMPTS, SITE, "generated", ANSWERS)
    assert tiny.tokenizer.decode(answers.tokens) == "".join(ANSWERS)
    ends = tiny.activations(PROMPTS, SITE, "sentence", ANSWERS)
    assert torch.bincount(ends.rows).tolist() == [1 + 1, 1 + 0, 1 + 1, 1 + 2]
    first = tiny.activations(PROMPTS, SITE, "sentence")
    assert torch.equal(first.values, header.values)


def test_a_chat_that_ends_in_an_answer_is_read_with_it(tiny):
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "one"}]
    chat += [{"role": "user", "content": "r"}, {"role": "assistant", "content": "two"}]
    read = tiny.activations([chat], SITE, "generated")
    assert tiny.tokenizer.decode(read.tokens) == "two<|im_end|>\n"
    header = tiny.activations([chat], SITE, "header")
    assert int(header.positions) == len(tiny.prompt_ids(chat[:3])) - 1
    assert torch.allclose(header.values, tiny.activations([chat[:3]], SITE).values, atol=1e-5)


def test_a_mask_is_taken_row_by_row_whatever_the_order(tiny):
    mask = torch.zeros(4, 3, dtype=torch.bool)
    mask[0, 2] = mask[1, 0] = mask[1, 1] = mask[2, 0] = True
    read = tiny.activations(PROMPTS, SITE, mask, batch_size=1)
    lengths = [len(tiny.prompt_ids(p)) for p in PROMPTS]
    assert read.rows.tolist() == [0, 1, 1, 2]
    assert read.positions.tolist() == [lengths[0] - 1, lengths[1] - 3, lengths[1] - 2, 0]


def test_edits_are_seen(tiny):
    direction = random_directions(1, 32, SITE, 0)[0]
    plain = tiny.activations(PROMPTS, SITE).values
    steered = tiny.activations(PROMPTS, SITE, edits=[Steer(SITE, direction, 2.0, positions="header")]).values
    assert torch.allclose(steered - plain, 2 * direction.vector.expand(4, -1), atol=1e-5)
    strengths = torch.tensor([1.0, 2.0, 3.0, 4.0])
    each = [Steer(SITE, direction, strengths, positions="header")]
    apart = tiny.activations(PROMPTS, SITE, edits=each, batch_size=1).values
    assert torch.allclose((apart - plain) @ direction.vector, strengths, atol=1e-5)


def test_the_residual_norm_is_the_median_without_first_tokens(tiny):
    norms = [tiny.activations([p], SITE, "prompt").values[1:].norm(dim=-1) for p in PROMPTS]
    assert tiny.residual_norm(SITE, PROMPTS) == pytest.approx(float(torch.cat(norms).median()), rel=1e-5)


def test_what_is_refused(tiny):
    with pytest.raises(EmlabError, match="counted from 0 to 2"):
        tiny.activations(PROMPTS, "resid_post.3")
    with pytest.raises(EmlabError, match="no prompts"):
        tiny.activations([], SITE)
    with pytest.raises(EmlabError, match="4 prompts and 1 answers"):
        tiny.activations(PROMPTS, SITE, answers=["x"])
    with pytest.raises(EmlabError, match="two tokens"):
        tiny.residual_norm(SITE, [[5]])
