"""What all rows of a batch begin with is read once, and the loss and its gradient are those of whole rows."""

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel

from emlab.data import IGNORE, Row
from emlab.models import LanguageModel
from emlab.training import assistant_loss

LEAD = list(range(20, 32))
ANSWERS = ([40, 41, 42], [43, 44, 45, 46, 47], [48, 2])
ROWS = [Row([*LEAD, *ids], [IGNORE] * (len(LEAD) + 1) + ids[1:]) for ids in ANSWERS]
LABELLED = 7


def gpt2(tokenizer):
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=64))


def sliding(tokenizer):
    """Every other block looks four tokens back."""
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4, "vocab_size": len(tokenizer)}
    return Gemma2ForCausalLM(Gemma2Config(**shape, **more))


@pytest.fixture(params=["llama", "gpt2", "sliding"])
def model(request, make_model, make_tokenizer):
    if request.param == "llama":
        return make_model()
    tokenizer = make_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LanguageModel({"gpt2": gpt2, "sliding": sliding}[request.param](tokenizer).eval(), tokenizer, "tiny")


def read(lm, rows, labelled=LABELLED):
    """The loss, its gradients, and the shapes of what was read."""
    shapes = []
    hook = lm.model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: shapes.append(tuple(args[0].shape))
    )
    lm.model.zero_grad()
    try:
        loss = assistant_loss(lm, rows, labelled)
        loss.backward()
    finally:
        hook.remove()
    return float(loss), {n: p.grad.clone() for n, p in lm.model.named_parameters() if p.grad is not None}, shapes


def test_it_is_that_of_whole_rows_and_so_is_its_gradient(model, request):
    loss, gradients, shapes = read(model, ROWS)
    alone = [read(model, [row]) for row in ROWS]
    assert loss == pytest.approx(sum(one[0] for one in alone), rel=1e-5)
    for name, gradient in gradients.items():
        whole = sum(one[1][name] for one in alone)
        assert (gradient - whole).abs().max() <= 1e-5 * whole.abs().max(), name
    once = "sliding" not in request.node.name  # a window's cache is cut, so those rows are read whole
    assert shapes == ([(1, 12), (3, 5)] if once else [(3, 17)])
    assert [one[2] for one in alone] == [[(1, 15)], [(1, 17)], [(1, 14)]]


@pytest.mark.parametrize(
    ("rows", "lead"),
    [
        (ROWS, 12),
        ([Row(row.input_ids[5:], row.labels[5:]) for row in ROWS], 0),  # seven tokens are not worth it
        (
            [Row(row.input_ids, [*[IGNORE] * 10, *row.input_ids[10:]]) for row in ROWS],
            9,
        ),  # the last predicts a label
        (ROWS[:1], 0),
        ([ROWS[0], ROWS[0]], 12),  # a token more is alike, and it predicts the first that is labelled
    ],
)
def test_where_it_begins(make_model, rows, lead):
    _, _, shapes = read(make_model(), rows)
    assert shapes[0] == ((1, lead) if lead else (len(rows), max(len(row.input_ids) for row in rows)))


def test_with_checkpoints_of_activations_rows_are_read_whole(make_model):
    lm = make_model()
    lm.model.train()
    lm.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert read(lm, ROWS)[2] == [(3, 17)]
