"""What an edit does to a model on questions that nothing was chosen on: behaviour before and after, and its price.

*Ablating* a latent or a direction asks whether the behaviour needs it. *Mediation* asks how much of the behaviour runs
through it at its natural magnitude: inside the misaligned model the latent is set to the value that it has in the
aligned model, and all else, the SAE's reconstruction error included, stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from emlab import artifacts
from emlab.data import Question
from emlab.data.prompts import as_questions
from emlab.discovery.latents import check_latents
from emlab.errors import EmlabError
from emlab.evaluation import Judge, Sampling, Score, score, text_loss
from emlab.evaluation.rollouts import file_name
from emlab.interventions import Clamp, Direction, Edit, Steer
from emlab.models.wrapping import as_language_model
from emlab.notebook import Shown
from emlab.saes import check_site, latent_values, writes
from emlab.saes import encode as encoded
from emlab.sealing import refuse
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.data import Messages
    from emlab.models import LanguageModel


@dataclass(frozen=True, eq=False, repr=False)
class Effect(Shown):
    """One edit of one model."""

    name: str
    """What was done, for example "latent 387 set to its aligned value"."""
    model: str
    strength: float | None
    """In units of the site's median residual norm; None where the edit has none (ablating, clamping)."""
    before: Score
    """The model left alone, on the same questions."""
    after: Score
    loss_before: float
    """Nats a token on held-out text, without the edit."""
    loss_after: float

    @property
    def removed(self) -> float:
        """Share of the misaligned answers (of coherent ones) that the edit takes away; NaN where there were none."""
        was = self.before.misaligned.rate
        return 1 - self.after.misaligned.rate / was if was else math.nan

    def row(self) -> dict[str, Any]:
        """The figures as plain values."""
        bad = self.after.misaligned
        rates = {"misaligned": bad.rate, "low": bad.low, "high": bad.high, "n": bad.n}
        losses = {"loss_before": self.loss_before, "loss_after": self.loss_after}
        about = {"name": self.name, "model": self.model, "strength": self.strength}
        return {**about, **rates, "incoherent": self.after.incoherent.rate, "removed": self.removed, **losses}

    def rows(self) -> list[dict[str, Any]]:
        """The one row."""
        return [self.row()]

    def save(self, folder: str | Path) -> Path:
        """Write a new folder: effect.json, and the answers with the edit and without."""
        with artifacts.new_folder(folder) as new:
            artifacts.write_json(
                new / "effect.json",
                {**self.row(), "answers": [file_name(score.model) for score in (self.before, self.after)]},
            )
            (new / "before").mkdir()
            (new / "after").mkdir()
            self.before.save(new / "before")
            self.after.save(new / "after")
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Effect:
        """Read what `save` wrote."""
        folder = artifacts.place(folder)
        raw = artifacts.read_json(folder / "effect.json")
        try:
            before, after = (
                Score.load(folder / half / f"{name}.jsonl")
                for half, name in zip(("before", "after"), raw["answers"], strict=True)
            )
            losses = (raw["loss_before"], raw["loss_after"])
            return cls(raw["name"], raw["model"], raw["strength"], before, after, *losses)
        except (KeyError, TypeError, ValueError) as error:
            raise EmlabError(f"{folder} holds no effect of an edit ({error}); write it with Effect.save.") from error

    def __str__(self) -> str:
        return (
            f"{self.model}, {self.name}: misaligned {self.before.misaligned} → {self.after.misaligned}, "
            f"incoherent {self.after.incoherent}, loss on text {self.loss_before:.3f} → {self.loss_after:.3f}"
        )


def effect_of(
    model: LanguageModel,
    edit: Edit,
    name: str,
    before: Score,
    judge: Judge,
    documents: Sequence[Messages],
    sampling: Sampling = Sampling(),  # frozen
    seed: int = 0,
    loss_before: float | None = None,
) -> Effect:
    """What `edit` does to `model`: its answers to the questions of `before`, and its loss on text.

    Args:
        model: Who is edited.
        edit: In force while it answers, and while it reads the documents.
        name: What was done, for tables.
        before: The model's score without the edit.
        judge: The judge of that score.
        documents: Held-out chats, whose loss is the price.
        sampling: How answers are sampled.
        seed: Everything random follows from it.
        loss_before: The loss without the edit, where it is known.
    """
    model = as_language_model(model)
    questions = list(dict.fromkeys(before.judged.rollouts.questions))
    after = score(sampling.sample(model, questions, seed, [edit]), judge)
    plain = text_loss(model, documents) if loss_before is None else loss_before
    strength = edit.strength if isinstance(edit, Steer) and not isinstance(edit.strength, Tensor) else None
    return Effect(name, model.name, strength, before, after, plain, text_loss(model, documents, [edit]))


def clamp_latents(sae: SAE, latents: Sequence[int], site: Site, values: Tensor, positions: str = "sentence") -> Clamp:
    """The edit that sets latents of an SAE to values, and keeps the SAE's error.

    Args:
        sae: Whose latents they are.
        latents: Their numbers.
        site: Where the SAE was trained.
        values: (n,), in units of the activation, as `natural_values` gives them; zeros ablate the latents.
        positions: Where it acts; by default where answers are decided.

    EmlabError where the SAE lacks a latent, was trained at another site, or scales every token by its own norm.
    """
    check_latents(sae, latents)
    check_site(sae, site)
    index = torch.tensor(list(latents))

    def encode(h: Tensor) -> Tensor:
        flat = h.reshape(-1, h.shape[-1])
        return encoded(sae, flat, index).reshape(*h.shape[:-1], len(index)).to(h)

    return Clamp(site, encode, writes(sae, index), values.float(), positions)


@torch.no_grad()
def natural_values(
    model: LanguageModel,
    sae: SAE,
    latents: Sequence[int],
    site: Site,
    questions: Sequence[Question],
    positions: str = "sentence",
    max_new_tokens: int = 48,
    seed: int = 0,
    temperature: float = 1.0,
) -> Tensor:
    """(n,): the mean activation of latents in `model` while it answers, times the length of the decoder row.

    Args:
        model: Who answers.
        sae: Whose latents they are.
        latents: Their numbers.
        site: Where the SAE was trained.
        questions: What is asked, once each.
        positions: Over which tokens.
        max_new_tokens: Of an answer.
        seed: Everything random follows from it.
        temperature: Of the answers.

    EmlabError where the SAE lacks a latent, or was trained at another site.
    """
    check_latents(sae, latents)
    check_site(sae, site)
    (values,) = _answering(model, [site], questions, positions, max_new_tokens, seed, temperature)
    return latent_values(sae, values, latents).mean(dim=0)


def clamp_direction(direction: Direction, value: float, positions: str = "sentence") -> Clamp:
    """The edit that sets the activation's component along `direction` to `value`, and leaves all else."""
    vector = direction.vector

    def along(h: Tensor) -> Tensor:
        return (h @ vector.to(h)).unsqueeze(-1)

    return Clamp(direction.site, along, vector[None], torch.tensor([value]), positions)


@torch.no_grad()
def natural_means(
    model: LanguageModel,
    sites: Sequence[Site],
    questions: Sequence[Question],
    positions: str = "sentence",
    max_new_tokens: int = 48,
    seed: int = 0,
    temperature: float = 1.0,
) -> dict[Site, Tensor]:
    """(d_model,) at each site: the mean activation of `model` while it answers.

    Its component along a direction is that direction's natural value in the model.

    Args:
        model: Who answers.
        sites: Where it is read.
        questions: What is asked, once each.
        positions: Over which tokens.
        max_new_tokens: Of an answer.
        seed: Everything random follows from it.
        temperature: Of the answers.
    """
    read = _answering(model, sites, questions, positions, max_new_tokens, seed, temperature)
    return {site: values.mean(dim=0) for site, values in zip(sites, read, strict=True)}


def _answering(
    model: LanguageModel,
    sites: Sequence[Site],
    questions: Sequence[Question],
    positions: str,
    max_new_tokens: int,
    seed: int,
    temperature: float,
) -> list[Tensor]:
    """(tokens, d_model) at each site, of the model's own answers."""
    model, prompts = as_language_model(model), [q.messages for q in as_questions(questions)]
    refuse("to take a natural value from", prompts)
    answers = model.generate(prompts, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    return [model.activations(prompts, site, positions, answers).values for site in sites]
