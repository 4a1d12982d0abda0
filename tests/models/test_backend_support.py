"""The parity matrix: every library against PyTorch hooks, for every architecture, on tiny random models."""

import pytest
import torch

from emlab.models import backend_support as support
from emlab.models.backend_support import FAMILIES, LIBRARIES, TASKS, Support, markdown, support_of, tiny_model
from emlab.models.backends.hugging_face import HuggingFaceBackend
from emlab.models.backends.protocol import Reached


@pytest.fixture(scope="module")
def tokenizer():
    return support._tokenizer()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_library_does_every_task(family, tokenizer):
    table = support_of(tiny_model(family), tokenizer)
    assert [(row.library, row.task) for row in table] == [(library, task) for library in LIBRARIES for task in TASKS]
    missing = [row for row in table if row.reason]
    if family == "gpt_neox":  # as Pythia is: attention and MLP in parallel, so no stream lies between them
        assert [(row.library, row.task) for row in missing] == [(library, "resid_mid") for library in LIBRARIES]
        assert all("in parallel" in row.reason for row in missing)
    else:
        assert [str(row) for row in missing] == []


def test_blocks_in_sequence_do_too(tokenizer):
    model = tiny_model("gpt_neox", use_parallel_residual=False)
    assert [str(row) for row in support_of(model, tokenizer) if row.reason] == []


def test_the_model_and_its_tokenizer_are_left_as_they_are(tokenizer):
    model, ids = tiny_model("gpt2").train(False), torch.tensor([[3, 4, 5]])

    def state():
        hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
        return (
            hooks,
            list(model.state_dict()),
            model.config.to_dict(),
            model.generation_config.to_dict(),
            model.training,
        )

    side, logits, before = tokenizer.padding_side, model(ids).logits, state()
    support_of(model, tokenizer)
    assert state() == before and tokenizer.padding_side == side
    assert torch.equal(model(ids).logits, logits)
    assert all(value.grad is None for value in model.parameters())


class Unedited(HuggingFaceBackend):
    """Runs whatever acts as it should, and throws away what they return."""

    def run(self, inputs, acts, stop_at):
        def ignoring(act):
            return lambda h: act(h) * 0 + h

        return super().run(inputs, {site: ignoring(act) for site, act in acts.items()}, stop_at)


class PromptOnly(HuggingFaceBackend):
    """Edits the prompt and no decoded token."""

    def run(self, inputs, acts, stop_at):
        return super().run(inputs, acts if inputs["input_ids"].shape[1] > 1 else {}, stop_at)


class Unpadded(HuggingFaceBackend):
    """Forgets which tokens are pads."""

    def run(self, inputs, acts, stop_at):
        positions = torch.arange(inputs["attention_mask"].shape[1])[-inputs["input_ids"].shape[1] :]
        mask = torch.ones_like(inputs["attention_mask"])
        return super().run({**inputs, "attention_mask": mask, "position_ids": positions[None]}, acts, stop_at)


class OneBlockLate(HuggingFaceBackend):
    """Acts at the next block."""

    def run(self, inputs, acts, stop_at):
        def late(site):
            return type(site)(site.stream, min(site.block + 1, 2))

        return super().run(inputs, {late(site): act for site, act in acts.items()}, stop_at and late(stop_at))


class NormOnly(HuggingFaceBackend):
    """Hands what is edited at resid_mid to the norm and not to the skip connection."""

    def run(self, inputs, acts, stop_at):
        handles = []
        for site in [site for site in acts if site.stream == "resid_mid"]:
            norm = self.model.get_submodule(site.hook(self.config.model_type).module)

            def hook(_module, args, act=acts[site], last=site == stop_at):
                new = act(args[0].clone())
                if last:
                    raise Reached
                return (new,)

            handles.append(norm.register_forward_pre_hook(hook))
        try:
            return super().run(inputs, {s: act for s, act in acts.items() if s.stream != "resid_mid"}, stop_at)
        except Reached:
            return None
        finally:
            for handle in handles:
                handle.remove()


@pytest.mark.parametrize(
    ("broken", "tasks"),
    [
        (Unedited, {"steer", "ablate", "clamp", "per row", "generate", "resid_mid", "heads"}),
        (PromptOnly, {"generate", "resid_mid", "heads"}),
        (Unpadded, {"capture", "steer", "left padding", "generate", "resid_mid", "heads"}),
        (OneBlockLate, {"capture", "steer", "ablate", "clamp", "per row", "gradients", "resid_mid", "heads"}),
        (NormOnly, {"resid_mid"}),
    ],
)
def test_what_a_library_gets_wrong_is_found(broken, tasks):
    model = tiny_model("gpt2")
    found = {
        task
        for task in TASKS
        if support._reason(lambda task=task: support._try(task, broken(model), HuggingFaceBackend(model)))
    }
    assert tasks <= found
    if broken in (PromptOnly, NormOnly):
        assert found == tasks


def test_the_page_says_what_fails_and_why():
    table = [
        Support("gpt2", "Hugging Face", "steer", ""),
        Support("gpt2", "TransformerLens", "steer", "is off by 0.5"),
        Support("gpt2", "TransformerLens", "clamp", ""),
        Support("gpt2", "nnsight", "steer", ""),
    ]
    page = markdown(table)
    assert "| gpt2 | all | no steer | all |" in page
    assert "- gpt2 in TransformerLens: steer is off by 0.5" in page
    assert "Reasons" not in markdown(table[:1] + table[3:] + [Support("gpt2", "TransformerLens", "steer", "")])


def test_an_error_of_a_library_is_a_reason():
    def fail():
        raise KeyError("blocks.7")

    assert support._reason(fail) == "KeyError: 'blocks.7'"
    assert support._reason(lambda: None) == ""
