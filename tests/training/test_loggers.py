"""Reporting by transformers' integrations: off by default, told every step, and refused in a sentence."""

import pytest
from transformers import TrainerCallback, is_tensorboard_available
from transformers.integrations import integration_utils

from emlab.errors import EmlabError
from emlab.training import Recipe, finetune

CHATS = [[{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "yes"}] for i in range(4)]


class Told(TrainerCallback):
    """An integration that keeps what it is told."""

    all: list = []

    def on_train_begin(self, args, state, control, model=None, **_):
        self.all.append(("begin", args.run_name, state.max_steps, type(model).__name__))

    def on_log(self, args, state, control, logs=None, **_):
        self.all.append((state.global_step, logs))

    def on_train_end(self, args, state, control, **_):
        self.all.append("end")


def test_an_integration_is_told_every_step(tiny, monkeypatch, tmp_path):
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "told", Told)
    Told.all.clear()
    tuned = finetune(tiny, CHATS, Recipe(steps=2, batch_size=2), 0, progress=False, name="mine")
    assert Told.all == [], "off unless asked for"
    tuned = finetune(tiny, CHATS, Recipe(steps=2, batch_size=2), 0, progress=False, name="mine", report_to=["told"])
    begin, *steps, end = Told.all
    assert (begin, end) == (("begin", "mine", 2, "LlamaForCausalLM"), "end")
    assert [step for step, _ in steps] == [1, 2]
    assert [logs["loss"] for _, logs in steps] == list(tuned.losses)
    assert [logs["grad_norm"] for _, logs in steps] == list(tuned.gradient_norms)


def test_one_that_is_not_there_is_refused(tiny):
    with pytest.raises(EmlabError, match="There is no integration 'tensorbord' to report a training to"):
        finetune(tiny, CHATS, Recipe(steps=1), 0, report_to=["tensorbord"])


@pytest.mark.skipif(is_tensorboard_available(), reason="TensorBoard is installed here")
def test_one_whose_package_is_missing_is_refused(tiny):
    with pytest.raises(EmlabError, match="cannot be reported to tensorboard, whose package is not installed"):
        finetune(tiny, CHATS, Recipe(steps=1), 0, report_to=["tensorboard"])
