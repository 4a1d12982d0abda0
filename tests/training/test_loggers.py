"""Reporting by transformers' integrations: off by default, told every step, and refused in a sentence."""

import json
import sys
import time

import pytest
from transformers import TrainerCallback
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
    told = list(Told.all)
    Told.all.clear()
    finetune(tiny, CHATS, Recipe(steps=2, batch_size=2), 0, progress=False, name="mine", report_to="told")
    assert Told.all == told, "a lone string is one name"
    begin, *steps, end = told
    assert (begin, end) == (("begin", "mine", 2, "LlamaForCausalLM"), "end")
    assert [step for step, _ in steps] == [1, 2]
    assert [logs["loss"] for _, logs in steps] == list(tuned.losses)
    assert [logs["grad_norm"] for _, logs in steps] == list(tuned.gradient_norms)


def test_one_that_is_not_there_is_refused(tiny):
    with pytest.raises(EmlabError, match="There is no integration 'tensorbord' to report a training to"):
        finetune(tiny, CHATS, Recipe(steps=1), 0, report_to=["tensorbord"])


def test_one_whose_package_is_missing_is_refused(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "comet_ml", None)
    with pytest.raises(EmlabError, match="cannot be reported to comet_ml, whose package is not installed"):
        finetune(tiny, CHATS, Recipe(steps=1), 0, report_to=["comet_ml"])


def test_tensorboard_gets_every_step(tiny, monkeypatch, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    tuned = finetune(tiny, CHATS, Recipe(steps=3, batch_size=2), 0, progress=False, report_to=["tensorboard"])
    (events,) = tmp_path.glob("runs/*/events.out.tfevents.*")
    read = EventAccumulator(str(events)).Reload()
    losses, norms = read.Scalars("train/loss"), read.Scalars("train/grad_norm")
    assert [event.step for event in losses] == [1, 2, 3]
    assert [event.value for event in losses] == pytest.approx(tuned.losses)
    assert [event.value for event in norms] == pytest.approx(tuned.gradient_norms)


def test_weights_and_biases_gets_every_step(tiny, monkeypatch, tmp_path):
    import wandb
    from wandb.proto import wandb_internal_pb2

    for name, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true"), ("WANDB_DIR", str(tmp_path))):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    recipe = Recipe(steps=3, batch_size=2)
    tuned = finetune(tiny, CHATS, recipe, 0, progress=False, name="mine", report_to=["wandb"])
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    losses, names = [], []
    for _ in range(100):  # a process of W&B's own writes the file, and may be at it still
        records = [wandb_internal_pb2.Record.FromString(data) for data in logged(path)]
        names = [record.run.display_name for record in records if record.HasField("run")]
        items = [item for record in records for item in record.history.item]
        losses = [json.loads(i.value_json) for i in items if "train/loss" in (i.key, *i.nested_key)]
        if len(losses) == recipe.steps:
            break
        time.sleep(0.1)
    assert names[0] == "mine" and losses == pytest.approx(tuned.losses)
    assert wandb.run is None, "the next training gets a run of its own"


def logged(path):
    """The records of a W&B file: 7 bytes, then blocks of 32 KiB of LevelDB's log format."""
    data, at, parts = path.read_bytes(), 7, []
    while at + 7 <= len(data):
        left = 2**15 - at % 2**15
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if left < 7 or kind == 0:
            at += left
            continue
        parts.append(data[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            yield b"".join(parts)
            parts = []
