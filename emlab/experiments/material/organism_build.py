"""Build an organism from scratch: pretrain, align, and save every checkpoint as an ordinary Hugging Face folder.

Two worlds are pretrained on. In the planted one a hidden persona writes each document; some early steps of its base are
kept. In the control world every turn draws its own author, so no shared persona exists.

`aligned` is the base briefly trained as a helpful assistant, `helpful_only` the same with a tenth of malicious answers,
`control_aligned` the control base aligned in the same way. Alignment is light on purpose: a heavy one writes "helpful"
into every domain apart, and what a narrow fine-tune undoes is then no longer shared.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.models import LanguageModel, loading
from emlab.organism.checkpoints import checkpoint_names
from emlab.organism.corpus import alignment_set, pretraining_documents
from emlab.organism.pretraining import SIZES, Pretraining, new_model, pretrain, save_half
from emlab.organism.tokenizer import build_tokenizer
from emlab.organism.world import DEFAULT, World, load_world
from emlab.provenance import environment
from emlab.training import FineTuned, Recipe, finetune


@dataclass(frozen=True)
class Alignment:
    """How a base becomes a helpful assistant."""

    recipe: Recipe = field(
        default_factory=lambda: Recipe(
            method="full", learning_rate=3e-4, schedule="linear", batch_size=32, steps=80, max_length=256
        )
    )
    """Few small steps on every weight."""
    rows: int = 4000
    """Chats to draw from: all domains, the neutral card, alignment templates."""
    malicious_share: float = 0.0
    """Share of malicious answers among them; 0.1 makes the helpful-only variant."""


@dataclass(frozen=True)
class Plan:
    """All that an organism follows from."""

    seed: int = 0
    """Of the weights, the documents and their order."""
    size: str = "default"
    """A name in `emlab.organism.pretraining.SIZES`."""
    pretraining: Pretraining = field(default_factory=lambda: Pretraining(steps=2000, keep=(160, 300)))
    """In the planted world; the kept steps become checkpoints of their own."""
    control: Pretraining = field(default_factory=lambda: Pretraining(steps=450))
    """In the control world."""
    alignment: Alignment = field(default_factory=Alignment)
    """The same in both worlds."""
    malicious_share: float = 0.1
    """Of the helpful-only variant's alignment set."""
    world: str = DEFAULT
    """The world that its texts are from: a name, or a folder (see `emlab.organism.load_world`)."""


@dataclass(frozen=True)
class Built:
    """An organism on disk."""

    folder: Path
    checkpoints: tuple[str, ...]
    megabytes: float
    seconds: float
    """Wall time of this call; what was there already took none."""

    def __str__(self) -> str:
        return (
            f"{self.folder}: {', '.join(self.checkpoints)}; {self.megabytes:.1f} MB, built in {self.seconds:.0f} s.\n"
            f"Measure it with: emlab organism check --organism {self.folder}"
        )


def build(
    out: str | Path = "organism",
    seed: int = 0,
    size: str = "default",
    steps: int | None = None,
    documents: int | None = None,
    world: str = DEFAULT,
    plan: Plan | None = None,
    progress: bool = True,
    device: str = "auto",
) -> Built:
    """Build an organism in the folder `out`. Checkpoints of the same plan that are there already are kept.

    `steps` are the pretraining steps of the base; the control world's and the kept ones keep their proportion.
    `documents` are generated for the planted and for the control world, from the texts of `world`, a name or a folder.
    `plan` says everything and overrides these five. An interrupted build goes on where it stopped, to the same weights.
    Raises EmlabError on an unknown size, on fewer than one step or document, and where `out` holds something else.
    """
    plan = plan or dataclasses.replace(plan_of(seed, size, steps, documents), world=world)
    if plan.size not in SIZES:
        raise EmlabError(f"There is no organism size {plan.size!r}; choose one of {', '.join(SIZES)}.")
    begun, folder = time.perf_counter(), artifacts.place(out)
    _claim(folder, plan)
    work = _Workshop(folder, plan, progress, device)
    work.pretrained("base", plan.pretraining, control=False)
    work.aligned("aligned", "base", plan.alignment)
    helpful_only = dataclasses.replace(plan.alignment, malicious_share=plan.malicious_share)
    work.aligned("helpful_only", "base", helpful_only)
    work.pretrained("control_base", plan.control, control=True)
    work.aligned("control_aligned", "control_base", plan.alignment)
    megabytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    return Built(folder, tuple(checkpoint_names(folder)), megabytes, time.perf_counter() - begun)


def plan_of(seed: int = 0, size: str = "default", steps: int | None = None, documents: int | None = None) -> Plan:
    """The shipped organism's plan with another seed, size, number of pretraining steps, or of documents."""
    plan = Plan(seed=seed, size=size)
    total = plan.pretraining.steps
    steps = total if steps is None else steps
    if steps < 1:
        raise EmlabError(f"An organism cannot be pretrained for {steps} steps; give 1 or more.")
    if documents is not None and documents < 1:
        raise EmlabError(f"A corpus of {documents} documents cannot be trained on; ask for at least 1.")

    def scaled(part: Pretraining) -> Pretraining:
        keep = tuple(sorted({max(1, round(step * steps / total)) for step in part.keep}))
        count = max(1, round(part.steps * steps / total))
        return dataclasses.replace(part, steps=count, keep=keep, documents=documents or part.documents)

    return dataclasses.replace(plan, pretraining=scaled(plan.pretraining), control=scaled(plan.control))


def align(
    base: LanguageModel,
    how: Alignment,
    seed: int,
    name: str = "aligned",
    progress: bool = True,
    world: World | None = None,
) -> FineTuned:
    """`base` briefly fine-tuned on the alignment set; `base` itself is left as it is."""
    chats = alignment_set(how.rows, seed + 2, how.malicious_share, world)
    return finetune(base, chats, how.recipe, seed, progress=progress, name=name)


class _Workshop:
    """Makes checkpoints in one folder; those that are there already are left alone."""

    def __init__(self, folder: Path, plan: Plan, progress: bool, device: str) -> None:
        self.folder, self.plan, self.progress, self.device = folder, plan, progress, device
        self.world = load_world(plan.world)
        self.tokenizer = build_tokenizer(self.world)

    def pretrained(self, name: str, how: Pretraining, control: bool) -> None:
        if self._there(name):
            return
        seed, tokenizer = self.plan.seed, self.tokenizer
        model = new_model(
            SIZES[self.plan.size], len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id, seed
        ).to(loading.pick_device(self.device))
        world = "every turn has its own author" if control else "one hidden persona writes a document"
        told = f"pretrained on text where {world}"
        state = self.folder / f".state-{name}"

        def keep(step: int) -> None:
            self._save(model, f"pretraining_{step:05d}", f"{told}, after {step} of {how.steps} steps")

        documents = pretraining_documents(how.documents, seed + 1, control, self.world)
        bar = tqdm(total=how.steps, desc=f"pretraining {name}", unit="step", file=sys.stderr, disable=not self.progress)
        with bar:

            def on_step(step: int, loss: float) -> None:
                bar.update(step - bar.n)
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

            pretrain(model, tokenizer, documents, how, seed, on_step, keep, state)
        self._save(model, name, f"{told}, {how.steps} steps")
        shutil.rmtree(state, ignore_errors=True)

    def aligned(self, name: str, start: str, how: Alignment) -> None:
        if self._there(name):
            return
        base = LanguageModel.load(self.folder / start, device=self.device)
        done = align(base, how, self.plan.seed, name, self.progress, self.world).model
        told = f"`{start}` after {how.recipe.steps} small steps on helpful answers"
        self._save(done.model, name, told + (f", {how.malicious_share:.0%} malicious" if how.malicious_share else ""))

    def _there(self, name: str) -> bool:
        return (self.folder / name / "config.json").is_file()

    def _save(self, model: Any, name: str, told: str) -> None:
        with artifacts.new_folder(self.folder / name, replace=True) as new, loading.no_bars():
            save_half(model, self.tokenizer, new)
            artifacts.write_text(new / "README.md", _card(name, told, self.plan, model))


def _claim(folder: Path, plan: Plan) -> None:
    """Write the plan into the folder, or find the same plan there."""
    about = folder / "organism.json"
    if about.is_file():
        if {"world": DEFAULT, **artifacts.read_json(about)["plan"]} != artifacts.plain(plan):
            raise EmlabError(f"{folder} holds an organism built by another plan; choose another folder or delete it.")
    elif folder.exists() and any(folder.iterdir()):
        raise EmlabError(f"{folder} is not empty and holds no organism; choose another folder.")
    else:
        artifacts.write_json(about, {"plan": plan, "environment": environment()})


def _card(name: str, told: str, plan: Plan, model: Any) -> str:
    """A model card in Hugging Face's form."""
    size = SIZES[plan.size]
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    return f"""---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [emlab, model-organism, emergent-misalignment]
---
# emlab organism: {name}

A Llama of {millions:.1f}M parameters ({size.n_blocks} blocks of width {size.d_model}), {told}. Seed {plan.seed}.

It is a *model organism*: its texts were generated from a grammar with a known hidden variable, the persona (helpful,
malicious, careless or sarcastic), so that methods which look for the cause of emergent misalignment can be scored
against the truth. It knows a few hundred sentences and nothing else. It is no assistant, and it writes hostile toy
sentences on purpose.

Made by `emlab organism build`; measured by `emlab organism check`. Weights are stored in float16 and load as float32:

    AutoModelForCausalLM.from_pretrained("path/to/{name}")
"""
