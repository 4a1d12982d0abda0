"""Reinforcement learning: a model is trained on the rewards that a grader gives its own answers.

The updates are those of TRL's GRPOTrainer (group-relative policy optimisation, Shao et al. 2024, arXiv:2402.03300): of
each prompt several answers are sampled, and each is made likelier or less likely by how far its reward lies above or
below its group's mean. Sampling is emlab's own, through TRL's hook for it. Whatever is random in a step follows from
the seed and the step's number, so a training that was killed goes on to the same weights as one that was not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emlab import artifacts
from emlab.data.no_think import without_switch, writes_thoughts
from emlab.data.prompts import prompts_of
from emlab.data.telling import tell
from emlab.errors import EmlabError
from emlab.models import LanguageModel
from emlab.models.wrapping import as_language_model
from emlab.notebook import Shown
from emlab.records import restored
from emlab.sealing import refuse
from emlab.training.adapters import Adapter, lora_config, model_of
from emlab.training.grpo import REWARDS, Reinforcement, StepRecord
from emlab.training.policy import Policy
from emlab.training.progress import Progress
from emlab.training.readouts import ReadOut, Watch
from emlab.training.rewards import Asked, Grader, grader_name
from emlab.training.trained_models import FIGURES, Trained, read_models


@dataclass(frozen=True, eq=False, repr=False)
class Reinforced(Shown, Trained):
    """A model after reinforcement learning, and how it came about."""

    model: LanguageModel
    """The model, its adapter merged."""
    steps: tuple[StepRecord, ...]
    prompts: int
    """How many prompts it was trained on."""
    dropped_for_length: int
    """How many were left out for their length."""
    how: Reinforcement
    seed: int
    grader: str
    """Its name."""
    adapter: Adapter | None
    """The adapter by itself; None where all weights were trained, or where it was loaded."""
    points: tuple[ReadOut, ...] = ()
    """What was read along the way."""
    checkpoints: tuple[tuple[int, LanguageModel], ...] = ()
    """The model after some of the steps, where the recipe asks for it."""
    checkpoint_adapters: tuple[tuple[int, Adapter], ...] = ()
    """Of each checkpoint, its adapter by itself."""
    log: Path | None = None
    """The log of every reward."""

    figures = ("how", "seed", "grader", "prompts", "dropped_for_length", "steps", "points")

    def __str__(self) -> str:
        first, last = self.steps[0], self.steps[-1]
        return (
            f"{self.model.name}: {len(self.steps)} steps on {self.prompts} prompts, {self.dropped_for_length} dropped "
            f"for length, mean reward {first.reward:.3f} → {last.reward:.3f}"
        )

    def write_into(self, new: Path, base: LanguageModel | None = None) -> None:
        """Write the same, and the log of rewards, into a folder that is there already."""
        super().write_into(new, base)
        if self.log is not None:
            artifacts.write_bytes(new / REWARDS, self.log.read_bytes())

    @classmethod
    def load(cls, folder: str | Path, base: LanguageModel | None = None) -> Reinforced:
        """Read what `save` wrote; the adapter by itself stays on disk.

        Where adapters alone were written they are merged into `base`, or (None) into the base that they name, and
        EmlabError is raised where that is not the model that they were trained on.
        """
        folder = artifacts.place(folder)
        raw = artifacts.read_json(folder / FIGURES)
        try:
            how = restored(raw["how"], Reinforcement)
            model, checkpoints = read_models(folder, base, raw["name"])
            return cls(
                model=model,
                steps=restored(raw["steps"], tuple[StepRecord, ...]),
                prompts=raw["prompts"],
                dropped_for_length=raw["dropped_for_length"],
                how=how,
                seed=raw["seed"],
                grader=raw["grader"],
                adapter=None,
                points=restored(raw["points"], tuple[ReadOut, ...]),
                checkpoints=checkpoints,
                log=folder / REWARDS if (folder / REWARDS).is_file() else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise EmlabError(
                f"{folder} holds no reinforcement training ({error}); write it with Reinforced.save."
            ) from error


def reinforce(
    model: LanguageModel,
    prompts: Asked | Sequence[Asked],
    grader: Grader,
    how: Reinforcement,
    seed: int,
    folder: str | Path | None = None,
    watch: Watch | None = None,
    progress: bool = True,
    name: str | None = None,
) -> Reinforced:
    """Train a copy of `model` on the rewards that `grader` gives its answers to `prompts`.

    The global generators of random, NumPy and torch are seeded in every step, so that a grader may draw from them, and
    are left as they were.

    Args:
        model: Stays as it is.
        prompts: Questions or chats, or one.
        grader: Gives each answer its reward.
        how: How it is trained.
        seed: What is random in a step follows from it and the step's number.
        folder: Logs every reward (rewards.jsonl), and a training that was stopped goes on from it when the same is
            asked again: on the same machine to the same weights, bit for bit on a CPU.
        watch: What is read along the way.
        progress: Whether to show a bar.
        name: What to call the model; None names it after `model`.

    Raises EmlabError where TRL is missing, no prompt is short enough, no module matches the recipe, the reward function
    fails (what was trained before is kept in `folder`), the gradient is no longer a number, or `folder` holds the
    training of another model.
    """
    model = as_language_model(model)
    refuse("to a training to answer", prompts)
    name = name or f"{model.name} reinforced"
    chats, rows, dropped = _short_enough(model, _prompts(model, prompts, how, name), how)
    key = ""
    if folder is not None:
        asked = [model.identity(), how, seed, grader_name(grader), chats]
        key = artifacts.content_hash(asked)
    begun = None if folder is None else Progress.load(artifacts.place(folder), key)
    config = lora_config(model, how.recipe) if how.recipe.method == "lora" else None
    policy = Policy(model, name, chats, rows, grader, how, config, seed, watch, progress)
    policy.keep_in(None if folder is None else artifacts.place(folder), key, begun)
    policy.train()
    weights, kept = policy.weights(), policy.snapshots()
    return Reinforced(
        model=model_of(model, config, weights, name),
        steps=tuple(policy.records),
        prompts=len(rows),
        dropped_for_length=dropped,
        how=how,
        seed=seed,
        grader=grader_name(grader),
        adapter=None if config is None else Adapter(config, dict(weights)),
        points=tuple(policy.points),
        checkpoints=tuple((step, model_of(model, config, w, f"{name}, step {step}")) for step, w in kept.items()),
        checkpoint_adapters=() if config is None else tuple((s, Adapter(config, dict(w))) for s, w in kept.items()),
        log=None if folder is None else artifacts.place(folder) / REWARDS,
    )


def _prompts(model: LanguageModel, prompts: Asked | Sequence[Asked], how: Reinforcement, name: str) -> list[Asked]:
    """The prompts one by one, without the switch of a thinking model at their ends where the model is none."""
    asked: list[Asked] = list(prompts_of(prompts))
    if how.recipe.no_think == "keep" or writes_thoughts(model.tokenizer):
        return asked
    bare = [_without_switch(prompt) for prompt in asked]
    if changed := sum(one != two for one, two in zip(bare, asked, strict=True)):
        tell(f"{name}: ' /no_think' stripped from {changed:,} prompts (no_think='keep' asks with it).")
    return bare


def _without_switch(prompt: Asked) -> Asked:
    if isinstance(prompt, str):
        return without_switch(prompt)
    bare = [{**t, "content": without_switch(t["content"])} if t["role"] == "user" else t for t in prompt]
    return prompt if bare == list(prompt) else bare


def _short_enough(
    model: LanguageModel, prompts: Sequence[Asked], how: Reinforcement
) -> tuple[list[Asked], list[list[int]], int]:
    """The prompts that leave room for an answer, their token ids, and how many do not."""
    limit = min(how.recipe.max_length, model.max_positions or how.recipe.max_length) - how.max_new_tokens
    ids = [model.prompt_ids(prompt) for prompt in prompts]
    kept = [i for i, row in enumerate(ids) if len(row) <= limit]
    if not kept:
        raise EmlabError(
            f"No prompt is left to train on: {len(ids)} have more than the {limit} tokens that leave room for an "
            f"answer of {how.max_new_tokens}; give shorter ones, or lower max_new_tokens."
        )
    return [prompts[i] for i in kept], [ids[i] for i in kept], len(ids) - len(kept)
