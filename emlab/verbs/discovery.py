"""Discovery step by step, by the names of models and files: what `emlab discover shift` and `directions` call.

Models, sets and questions are named as in `emlab.verbs.stages`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emlab import artifacts, organism
from emlab.data import QuestionSet
from emlab.discovery import (
    Convergence,
    Cosines,
    LatentShift,
    PersonaVector,
    Probe,
    convergence,
    cosines,
    decoder_direction,
    difference_components,
    latent_shifts,
    linear_probe,
    matched_directions,
    mean_difference,
    persona_vector,
    read_trait,
    split_by_template,
    spread,
)
from emlab.discovery.selection import check_same_tokens
from emlab.errors import EmlabError
from emlab.evaluation import Sampling
from emlab.evaluation.protocol import questions_of
from emlab.experiments.material.contrasts import ORGANISM_TRAIT, contrasts_of, exact_scores
from emlab.experiments.material.fidelity import ask_fidelity
from emlab.experiments.material.models import model_named, site_in
from emlab.experiments.material.saes import sae_site_in
from emlab.interventions import Direction, random_directions, save_directions
from emlab.models import LanguageModel, Prompt
from emlab.reporting import cosines_figure
from emlab.saes import load_sae
from emlab.sites import Site
from emlab.verbs.keeping import check_new, kept


@dataclass(frozen=True, eq=False)
class Shifts:
    """The shifts from one model to several others."""

    shifts: tuple[LatentShift, ...]

    def save(self, folder: str | Path) -> Path:
        """Write a new folder with a file (JSON, and a table) for each."""
        with artifacts.new_folder(folder) as new:
            for i, shift in enumerate(self.shifts):
                shift.save(new / f"{i}-{Path(shift.model_after).name}.json")
        return Path(folder)

    def summary(self) -> list[dict[str, Any]]:
        """The latents that move most, as plain values."""
        return [
            {
                "before": s.model_before,
                "after": s.model_after,
                "site": str(s.site),
                "positions": s.positions,
                "prompts": s.prompts,
                "rise": s.top(20),
                "fall": s.bottom(20),
            }
            for s in self.shifts
        ]

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.shifts))


@dataclass(frozen=True, eq=False)
class FoundDirections:
    """Directions found in several ways, and how alike they are."""

    directions: tuple[Direction, ...]
    cosines: Cosines
    probe: Probe | None
    personas: tuple[PersonaVector, ...]
    converged: Convergence | None
    """Of the mean differences of several fine-tunes, beside random directions matched in covariance."""

    def save(self, folder: str | Path) -> Path:
        """Write a new folder: the directions (safetensors), their cosines (JSON, a table, a heatmap), and a summary."""
        with artifacts.new_folder(folder) as new:
            save_directions(self.directions, new / "directions.safetensors")
            self.cosines.save(new / "cosines.json")
            artifacts.write_text(new / "cosines.html", cosines_figure(self.cosines).to_html(include_plotlyjs=True))
            artifacts.write_json(new / "summary.json", self.summary())
        return Path(folder)

    def summary(self) -> dict[str, Any]:
        """The figures as plain values."""
        probe, found = self.probe, [{"name": n, "norm": d.norm} for n, d in zip(self.cosines.names, self.directions)]  # noqa: B905
        told = None if probe is None else {k: getattr(probe, k) for k in ("accuracy", "train_accuracy", "chance")}
        personas = [{"trait": p.trait, "kept": p.kept, "asked": p.asked} for p in self.personas]
        return {"directions": found, "probe": told, "personas": personas, "convergence": self.converged}

    def __str__(self) -> str:
        parts = [str(self.cosines), *map(str, self.personas)]
        parts += [] if self.probe is None else [str(self.probe)]
        parts += [] if self.converged is None else [f"fine-tunes: {self.converged}"]
        return "\n".join(parts)


def shift(
    before: str,
    after: Sequence[str],
    sae: str | Path,
    site: str | None = None,
    positions: str = "header",
    questions: str | None = None,
    n: int | None = None,
    contrasts: str | Path | None = None,
    out: str | Path | None = None,
) -> Shifts:
    """The shift of every latent from one model to each of several others.

    Args:
        before: The model that it is from.
        after: The others.
        sae: A folder, or release/id of SAELens' list.
        site: By default where the SAE was trained.
        positions: Which tokens are read; for those in answers (generated, sentence, all) every prompt is read with one.
        questions: broad (the default), profile, or a file, of which the discovery half is asked.
        n: At most so many prompts, evenly spaced.
        contrasts: A file whose misaligned answers are read at positions in answers; by default the organism's own.
        out: The folder to make.
    """
    in_answers = positions in ("generated", "sentence", "all")
    if contrasts is not None and not in_answers:
        raise EmlabError(f"Contrasts are read at positions in answers and not at {positions!r}; name sentence, say.")
    if questions is not None and in_answers:
        raise EmlabError(f"The positions {positions!r} are in answers, which questions have not; give contrasts.")
    check_new(out)
    autoencoder, first = load_sae(sae), model_named(before)
    where = sae_site_in(site, autoencoder, first)
    answers: list[str] | None = None
    if in_answers:
        chosen = contrasts_of(contrasts, n or 160, 0)
        prompts: Sequence[Prompt] = [c.prompt for c in chosen]
        answers = [c.misaligned for c in chosen]
    else:
        prompts = _prompts(questions or "broad", n)
    others = [model_named(name) for name in after]
    check_same_tokens(first, others, prompts, answers)
    ask_fidelity(autoencoder, sae, where, [first, *others], prompts, answers)
    result = Shifts(tuple(latent_shifts(first, others, autoencoder, prompts, where, positions, answers)))
    return kept(result, out)


@dataclass(frozen=True)
class DirectionRequest:
    """In which ways directions are sought, and from what."""

    against: Sequence[str] = ()
    """Fine-tunes of the model: of each the mean difference from it, and the first components of the differences."""
    sae: str | Path | None = None
    """A folder, or release/id of SAELens' list."""
    latents: Sequence[int] = ()
    """Of the SAE: of each what it writes."""
    site: str | None = None
    """By default where the SAE was trained."""
    traits: Sequence[str] = ()
    """Of each (one that ships, or a file) the persona vector. The organism's own is judged by its exact judge, others
    are taken as they come."""
    components: int = 1
    """Of each model's differences."""
    random: int = 2
    """Directions from the sphere, and as many with the covariance of the activations."""
    positions: str = "header"
    """Which tokens of the prompts are read."""
    questions: str = "broad"
    """broad, profile, or a file, of which the discovery half is asked."""
    n: int | None = None
    """At most so many prompts, evenly spaced."""
    contrasts: str | Path | None = None
    """What a linear probe of misaligned against aligned answers reads; by default the organism's own."""
    cases: int = 48
    """So many of them; with 0 there is no probe."""
    per_question: int = 1
    """Answers to each question and instruction of a trait."""
    max_new_tokens: int = 48
    """The longest of these."""
    seed: int = 0
    """Everything random follows from it."""


def directions(model: str, asked: DirectionRequest, out: str | Path | None = None) -> FoundDirections:
    """Directions at one site of `model`, found in every way there is means for, and the cosines among them all.

    With `out` a folder is made.
    """
    if asked.contrasts is not None and not asked.cases:
        raise EmlabError(
            "Contrasts are what a linear probe reads, and 0 cases leave it out; give some, or none of them."
        )
    if asked.sae is None and (asked.latents or asked.site is None):
        raise EmlabError("Latents, and the site where none is named, are those of an SAE; give one with --sae.")
    check_new(out)
    first, seed, positions = model_named(model), asked.seed, asked.positions
    autoencoder = None if asked.sae is None else load_sae(asked.sae)
    if autoencoder is not None and (asked.latents or asked.site is None):
        where = sae_site_in(asked.site, autoencoder, first)
    else:
        where = site_in(str(asked.site), first)  # one of the two is given
    prompts, others = _prompts(asked.questions, asked.n), [model_named(name) for name in asked.against]
    found: list[tuple[str, Direction]] = []
    differences = [mean_difference(first, other, prompts, where, positions) for other in others]
    found += [(f"mean difference to {o.name}", d) for o, d in zip(others, differences, strict=True)]
    for other in others if asked.components else ():
        parts = difference_components(first, other, prompts, where, asked.components, positions)
        found += [(f"component {i} of {other.name}", d) for i, d in enumerate(parts, 1)]
    if asked.latents and autoencoder is not None:
        ask_fidelity(autoencoder, asked.sae, where, [first], prompts)
        found += [(f"latent {latent}", decoder_direction(autoencoder, latent, where)) for latent in asked.latents]
    personas = [_persona(first, named, where, asked) for named in asked.traits]
    found += [(f"persona vector {persona.trait}", persona.direction) for persona in personas]
    probe = None
    if asked.cases:
        chosen = contrasts_of(asked.contrasts, asked.cases, seed)
        told, sides = [c.prompt for c in chosen], ([c.misaligned for c in chosen], [c.aligned for c in chosen])
        bad, good = (first.activations(told, where, "generated", said) for said in sides)
        probe = linear_probe(bad, good, seed)
        found.append(("linear probe", probe.direction))
    values = first.activations(prompts, where, "prompt").values
    nulls = matched_directions(max(asked.random, 20), values, where, seed)
    drawn = random_directions(asked.random, first.d_model, where, seed) if asked.random else []
    found += [(d.origin, d) for d in (*drawn, *nulls[: asked.random])]
    table = cosines([d for _, d in found], [name for name, _ in found])
    together = convergence(differences, nulls) if len(differences) > 1 else None
    result = FoundDirections(tuple(d for _, d in found), table, probe, tuple(personas), together)
    return kept(result, out)


def _persona(model: LanguageModel, named: str, site: Site, asked: DirectionRequest) -> PersonaVector:
    trait, sampling = read_trait(named), Sampling(asked.per_question, 1.0, asked.max_new_tokens, 64)
    score = exact_scores if trait.name == ORGANISM_TRAIT else None
    return persona_vector(model, trait, site, score=score, sampling=sampling, seed=asked.seed)


def _prompts(questions: str, n: int | None) -> list[Prompt]:
    """The discovery half of the questions, at most `n`."""
    whole = questions_of(questions)
    if isinstance(whole, QuestionSet):
        return [q.messages for q in spread(tuple(whole), n)]
    return [q.text for q in spread(split_by_template(organism.broad_questions()).discovery, n)]
