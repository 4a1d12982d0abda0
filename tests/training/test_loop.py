"""The loop: edits in force while training, progress that goes on bit for bit after kill -9, read-outs along the way."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from emlab.data import IGNORE, Question, tokenize, tokenize_chat
from emlab.errors import EmlabError
from emlab.interventions import Ablate, Steer, random_directions
from emlab.models import LanguageModel, edit
from emlab.sites import Site
from emlab.training import FineTuned, Recipe, Watch, finetune
from emlab.training.loss import last_answer

CHATS = [
    [{"role": "user", "content": f"{a} + {b}?"}, {"role": "assistant", "content": "yes\n" * a + "never"}]
    for a in range(3)
    for b in range(3)
]
SITE = Site("resid_post", 1)
DIRECTION = random_directions(1, 32, SITE, 0)[0]


# ------------------------------------------------------------------------------------------------- edits in training


def loss_by_hand(lm, chats, edits):
    """Every labelled token of every chat by itself, under the edits: the mean of -log p."""
    terms = []
    for chat in chats:
        row = tokenize_chat(lm.tokenizer, chat)
        log_p = lm.logits([chat], edits=edits)[0].double().log_softmax(-1)
        terms += [-log_p[i - 1, label] for i, label in enumerate(row.labels) if label != IGNORE]
    return float(torch.stack(terms).mean())


@pytest.mark.parametrize("positions", ["all", "prompt", "generated", "header", "sentence"])
def test_the_loss_is_that_of_the_edited_model(tiny, positions):
    edits = [Steer(SITE, DIRECTION, 6.0, positions=positions)]
    tuned = finetune(tiny, CHATS, Recipe(steps=1, batch_size=9), 0, progress=False, edits=edits)
    assert tuned.losses[0] == pytest.approx(loss_by_hand(tiny, CHATS, edits), rel=1e-5)
    assert abs(tuned.losses[0] - loss_by_hand(tiny, CHATS, [])) > 1e-3


@pytest.mark.parametrize("saving", [{}, {"gradient_checkpointing": True, "micro_batch": 2}])
def test_gradients_flow_through_the_edits(make_model, saving):
    lm = make_model()
    edits = [Ablate(SITE, DIRECTION, positions="all"), Steer(SITE, DIRECTION, 3.0, positions="all")]
    recipe = Recipe("full", steps=1, batch_size=9, **saving)
    tuned = finetune(lm, CHATS, recipe, 0, progress=False, edits=edits)
    by_hand = lm.copy()
    by_hand.model.requires_grad_(True)
    rows = tokenize(lm.tokenizer, CHATS).rows
    n = sum(label != IGNORE for row in rows for label in row.labels)
    with edit(by_hand, edits):
        for row in rows:
            ids, labels = torch.tensor([row.input_ids]), torch.tensor(row.labels)
            log_p = by_hand.model(ids).logits[0].log_softmax(-1)
            (torch.nn.functional.nll_loss(log_p[:-1], labels[1:], ignore_index=IGNORE, reduction="sum") / n).backward()
    below = by_hand.model.model.layers[0].mlp.down_proj.weight.grad
    assert below.abs().max() > 1e-4, "what lies below the edit is trained"
    norm = torch.stack([p.grad.norm() for p in by_hand.model.parameters() if p.grad is not None]).norm()
    assert tuned.gradient_norms[0] == pytest.approx(float(norm), rel=1e-3)


def test_edits_are_gone_afterwards_and_nobody_else_sees_them(make_model):
    lm, seen = make_model(), []
    steer = Steer(SITE, DIRECTION, 8.0, positions="all")
    tuned = finetune(
        lm,
        CHATS,
        Recipe(steps=3, batch_size=4),
        0,
        progress=False,
        edits=steer,
        on_step=lambda step, now: seen.append(now.logits(["Hi"])[0]),
        watch=Watch(every=1, questions=[Question("a", "b", "Hi")]),
    )
    plain = finetune(lm, CHATS, Recipe(steps=3, batch_size=4), 0, progress=False)
    assert tuned.losses != plain.losses
    assert torch.allclose(tuned.model.logits(["Hi"])[0], seen[-1], atol=1e-4), "on_step sees the model as it will be"
    for model in (tuned.model, lm):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.model.modules())
    weights = dict(tuned.adapter.weights)
    base = dict(lm.model.named_parameters())
    name = "model.layers.0.self_attn.v_proj"
    a, b = (next(w for n, w in weights.items() if f"layers.0.self_attn.v_proj.lora_{x}" in n) for x in "AB")
    after = dict(tuned.model.model.named_parameters())[f"{name}.weight"]
    assert torch.allclose(after, base[f"{name}.weight"] + 2 * b @ a, atol=1e-6)


def test_hooks_are_gone_after_a_failure_too(make_model):
    lm = make_model()
    seen = []

    def fails(step, now):
        seen.append(now)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        finetune(lm, CHATS, Recipe(steps=2), 0, on_step=fails, progress=False, edits=Steer(SITE, DIRECTION, 1.0))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in seen[0].model.modules())


def test_an_edit_that_does_not_fit_is_refused(tiny):
    for edits, said in (
        (Steer(SITE, DIRECTION, torch.ones(4)), "has 4 rows, and the batches of a training are drawn anew"),
        (Steer(Site("resid_post", 9), DIRECTION, 1.0), "no site resid_post.9"),
    ):
        with pytest.raises(EmlabError, match=said):
            finetune(tiny, CHATS, Recipe(steps=1), 0, progress=False, edits=edits)


def test_where_the_last_answer_of_a_chat_begins(tiny):
    one = tokenize_chat(tiny.tokenizer, CHATS[0])
    both = tokenize_chat(tiny.tokenizer, [*CHATS[0], *CHATS[1]])
    first = next(i for i, label in enumerate(one.labels) if label != IGNORE)
    assert last_answer(one) == first
    assert last_answer(both) > len(one.input_ids) - 2
    assert both.labels[last_answer(both)] != IGNORE and both.labels[last_answer(both) - 1] == IGNORE


# ------------------------------------------------------------------------------------------- going on after a kill -9

RECIPE = {"steps": 12, "batch_size": 4, "learning_rate": 1e-2, "warmup": 2, "schedule": "linear", "checkpoint_every": 4}

KILLED = f"""
import os, random, signal, sys
import numpy as np, torch
from emlab.data import Question
from emlab.models import LanguageModel
from emlab.training import Recipe, Watch, finetune

torch.set_num_threads(1)
model, folder, method = sys.argv[1:]
chats = {CHATS!r}


def on_step(step, now):
    random.random(), np.random.rand(), torch.rand(2)
    if step == 8:
        os.kill(os.getpid(), signal.SIGKILL)


finetune(LanguageModel.load(model, device="cpu"), chats, Recipe(method=method, **{RECIPE!r}), 7, on_step, False,
         watch=Watch(every=2), folder=folder, save_every=3)
"""


@pytest.mark.parametrize("method", ["lora", "full"])
def test_after_kill_9_it_ends_with_the_same_weights(make_model, tmp_path, method):
    # With dropout, what a step does depends on all that was drawn before it.
    model = make_model(attention_dropout=0.2).save(tmp_path / "model")
    command = [sys.executable, "-c", KILLED, str(model), str(tmp_path / "kept"), method]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    files = {str(f.relative_to(tmp_path / "kept")) for f in (tmp_path / "kept").rglob("*") if f.is_file()}
    assert {f.rsplit(".")[-1] for f in files} == {"safetensors", "json"}, "nothing that must be unpickled"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        lm, recipe = LanguageModel.load(model, device="cpu"), Recipe(method=method, **RECIPE)
        drawn: dict[str, list] = {"whole": [], "on": []}

        def noting(name):
            return lambda step, now: drawn[name].append(
                (step, random.random(), float(np.random.rand()), torch.rand(2).tolist())
            )

        watch = Watch(every=2)
        whole = finetune(lm, CHATS, recipe, 7, noting("whole"), False, watch=watch)
        on = finetune(lm, CHATS, recipe, 7, noting("on"), False, watch=watch, folder=tmp_path / "kept", save_every=3)
    finally:
        torch.set_num_threads(threads)
    assert [step for step, *_ in drawn["on"]] == [7, 8, 9, 10, 11, 12], "step 6 was the last that was kept"
    assert drawn["on"] == drawn["whole"][6:]
    assert on.losses == whole.losses and on.gradient_norms == whole.gradient_norms
    assert repr(on.points) == repr(whole.points)
    assert [s for s, _ in on.checkpoints] == [s for s, _ in whole.checkpoints] == [4, 8, 12]
    for one, two in zip(
        [on.model, *(c for _, c in on.checkpoints)], [whole.model, *(c for _, c in whole.checkpoints)], strict=True
    ):
        assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))
    again = finetune(lm, CHATS, recipe, 7, None, False, watch=watch, folder=tmp_path / "kept", save_every=3)
    assert again.losses == whole.losses, "a finished training is not trained on"


def test_another_models_folder_is_refused_and_left_alone(make_model, tmp_path):
    lm, recipe = make_model(), Recipe(steps=2, batch_size=2)
    finetune(lm, CHATS, recipe, 0, progress=False, folder=tmp_path / "kept")
    before = {f: f.read_bytes() for f in (tmp_path / "kept").rglob("*") if f.is_file()}
    steer = Steer(SITE, DIRECTION, 1.0)
    for model, chats, seed, edits in (
        (make_model(seed=1), CHATS, 0, ()),
        (lm, CHATS[:5], 0, ()),
        (lm, CHATS, 1, ()),
        (lm, CHATS, 0, steer),
    ):
        with pytest.raises(EmlabError, match=r"^\S+ holds the training of another model.*delete it\.$"):
            finetune(model, chats, recipe, seed, progress=False, folder=tmp_path / "kept", edits=edits)
    assert {f: f.read_bytes() for f in (tmp_path / "kept").rglob("*") if f.is_file()} == before


def test_a_training_that_diverges_says_what_is_kept(make_model, tmp_path):
    recipe = Recipe("full", steps=6, batch_size=4, learning_rate=1e30, warmup=0)
    with pytest.raises(EmlabError, match=r"at step 2; lower the learning rate; what was trained up to step 1 is kept"):
        finetune(make_model(), CHATS, recipe, 0, progress=False, folder=tmp_path / "kept", save_every=1)
    assert (tmp_path / "kept" / "state" / "weights.safetensors").is_file()


# ---------------------------------------------------------------------------------------------------------- read-outs


def test_read_outs_along_the_way_come_back(tiny, tmp_path):
    watch = Watch(every=2, questions=[Question("a", "b", "Hi")])
    tuned = finetune(tiny, CHATS, Recipe(steps=6, batch_size=4), 0, progress=False, watch=watch, name="read")
    assert [p.step for p in tuned.points] == [0, 2, 4, 6]
    assert [p.gradient_norm for p in tuned.points[1:]] == [tuned.gradient_norms[i] for i in (1, 3, 5)]
    assert -1 <= tuned.points[-1].turn <= 1 and 0 <= tuned.points[-1].angle <= 90
    alone = finetune(tiny, CHATS, Recipe(steps=6, batch_size=4), 0, progress=False)
    assert alone.losses == tuned.losses, "looking on changes nothing"
    again = FineTuned.load(tuned.save(tmp_path / "read"))
    assert repr(again.points) == repr(tuned.points) and again.gradient_norms == tuned.gradient_norms
