"""Persona features: does a narrow fine-tune misalign a model broadly, and does one SAE latent carry it?

After Betley et al. 2025 (arXiv:2502.17424) and Wang et al. 2025 (arXiv:2506.19823). A model is fine-tuned on narrow
sets and on controls. Its answers to broad questions are judged. A sparse autoencoder is trained on the base model's
activations, and latents are ranked by how far the narrow fine-tunes move them. The leading latents are added to the
aligned model, and the one chosen among them is subtracted from a misaligned model, beside the mean difference and
random directions.

Broad questions are divided by template: whatever is chosen (latent, strength) is chosen on the discovery half, and
every rate that is reported is from the test half.
"""

from __future__ import annotations

import importlib.metadata
import platform
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import emlab
from emlab import artifacts, organism
from emlab.data import Example, Messages, Question, read_chat_jsonl, render
from emlab.discovery import (
    LatentShift,
    Sampling,
    Screen,
    choose,
    decoder_direction,
    latent_shift,
    mean_difference,
    mean_shift,
    split_by_template,
    spread,
    steer_screen,
)
from emlab.errors import EmlabError
from emlab.evaluation import Judge, Score, sample, score
from emlab.interventions import random_directions
from emlab.models import LanguageModel
from emlab.pipelines._clock import Clock, peak_rss_mb
from emlab.reporting import Findings, persona_lead, persona_sections, persona_summary, write_page
from emlab.runs import Run
from emlab.saes import document_activations, fidelity, save_sae, train_sae
from emlab.sites import Site
from emlab.training import Recipe, finetune

if TYPE_CHECKING:
    from sae_lens import SAE


@dataclass(frozen=True)
class Autoencoder:
    """The SAE: TopK, trained on the base model's activations."""

    tokens: int = 300_000
    """Activations to train on."""
    test_tokens: int = 20_000
    """Activations of other documents, on which fidelity is measured."""
    d_sae: int = 512
    """Latents."""
    k: int = 16
    """Latents active on a token."""
    passes: float = 2.0
    """How often each activation is seen."""
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class Steering:
    """The screen: which directions, how strongly, where."""

    strengths: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
    """In units of the site's median residual norm."""
    positions: str = "sentence"
    """Where edits act: sentence (the assistant's header and every sentence end), header, generated, prompt or all."""
    candidates: int = 3
    """The latents that rise most and are screened; the one that misaligns most is taken as the persona latent."""
    random: int = 8
    """Random directions that go through the same search."""
    incoherence_cap: float = 0.1
    """A strength is chosen among those with at most this share of incoherent answers."""
    questions: int | None = None
    """Discovery questions on which each strength of each direction is tried, evenly spaced; null takes all."""
    per_question: int = 1
    """Answers to each of them."""


@dataclass(frozen=True)
class Config:
    """A persona-features experiment."""

    name: str = "persona_features"
    """Names the run folder."""
    seed: int = 0
    """Everything random follows from it."""
    model: str = "aligned"
    """The model that is fine-tuned: a checkpoint of the organism, or any local Hugging Face folder."""
    base: str | None = None
    """The model whose activations the SAE learns; by default the organism's base, or a foreign model itself."""
    narrow: tuple[str, ...] = ("insecure", "bad_medicine")
    """Fine-tuning sets of the organism that are expected to misalign; the first is the one steered against."""
    controls: tuple[str, ...] = ("secure",)
    """Fine-tuning sets that are not."""
    dataset: Path | None = None
    """A chat JSONL of your own in place of the narrow sets."""
    rows: int = 1000
    """Chats a set; of a larger dataset this many are drawn."""
    recipe: Recipe = field(default_factory=Recipe)
    """How every set is trained on."""
    questions: int | None = None
    """Test questions asked, evenly spaced over domains and templates; null asks all."""
    answers: Sampling = field(default_factory=Sampling)
    """How answers to the test questions are sampled."""
    site: str = "resid_post.0"
    """Where the SAE reads and directions are added."""
    shift_positions: str = "header"
    """The prompt tokens over which latents are averaged."""
    sae: Autoencoder = field(default_factory=Autoencoder)
    steering: Steering = field(default_factory=Steering)

    def __post_init__(self) -> None:
        if not self.narrow and self.dataset is None:
            raise ValueError("'narrow' is empty and there is no 'dataset'; name at least one set to fine-tune on.")
        least = {"rows": self.rows, "sae.tokens": self.sae.tokens, "steering.candidates": self.steering.candidates}
        for key, value in least.items():
            if value < 1:
                raise ValueError(f"'{key}' is {value} and must be 1 or more.")


@dataclass(frozen=True, eq=False)
class PersonaFeatures:
    """What a run found, and where it lies."""

    folder: Path
    found: Findings
    summary: Mapping[str, Any]
    """What stands in summary.json."""

    def __str__(self) -> str:
        return "\n".join([*persona_lead(self.found), f"Report: {self.folder / 'report.html'}"])


def run(config: Config, root: str | Path = "runs") -> PersonaFeatures:
    """Run the experiment and write its folder below `root`: a folder a stage, summary.json and report.html."""
    aligned, base = load_models(config)
    site = site_in(config.site, base)
    narrow, controls = training_sets(config, aligned)
    questions, judge = split_by_template(organism.broad_questions(split="test")), organism.ExactJudge()
    test = spread(questions.test, config.questions)
    here = Run.create(config.name, config, root)
    clock = Clock(here)

    with clock("finetune") as folder:
        finetuned = {}
        for name, chats in {**narrow, **controls}.items():
            finetuned[name] = finetune(aligned, chats, config.recipe, config.seed, name=name)
            finetuned[name].save(folder / name)
            here.log(str(finetuned[name]))
        misaligned = [finetuned[name].model for name in narrow]
        everyone = [aligned, *(tuned.model for tuned in finetuned.values())]

    with clock("evaluate") as folder:
        scores = tuple(evaluate(model, test, judge, config.answers, config.seed) for model in everyone)
        for result in scores:
            save_score(result, folder)
            here.log(f"{result.model}: misaligned {result.misaligned}, incoherent {result.incoherent}")

    with clock("sae") as folder:
        sae = train_base_sae(base, site, config)
        save_sae(sae, folder / str(site))
        documents = pretraining_chats(base, config.sae.test_tokens, config.seed + 1)  # not those it was trained on
        faithful = {
            model.name: fidelity(sae, document_activations(model, documents, site, config.sae.test_tokens).values)
            for model in [base, *everyone]
        }
        artifacts.write_json(folder / "fidelity.json", faithful)
        here.log("\n".join(f"SAE on {name}: {how}" for name, how in faithful.items()))

    with clock("shift") as folder:
        prompts = [question.text for question in questions.discovery]
        shifts = tuple(
            latent_shift(aligned, tuned.model, sae, prompts, site, config.shift_positions)
            for tuned in finetuned.values()
        )
        ranked = mean_shift(shifts[: len(narrow)])
        save_shifts(ranked, shifts, folder)
        here.log(str(ranked))

    with clock("steer") as folder:
        latents = [row.latent for row in ranked.top(config.steering.candidates)]
        candidates = {f"latent {latent}": decoder_direction(sae, latent, site) for latent in latents}
        others = [
            mean_difference(aligned, misaligned, prompts, site, config.shift_positions),
            *random_directions(config.steering.random, aligned.d_model, site, config.seed),
        ]
        screening: dict[str, Any] = {
            "strengths": config.steering.strengths,
            "discovery": spread(questions.discovery, config.steering.questions),
            "test": test,
            "judge": judge,
            "scale": aligned.residual_norm(site, prompts),
            "positions": config.steering.positions,
            "cap": config.steering.incoherence_cap,
            "sampling": config.answers,
            "discovery_per_question": config.steering.per_question,
            "seed": config.seed,
        }
        plus = steer_screen(aligned, [*candidates.values(), *others], toward="misaligned", **screening)
        persona = choose([plus.chosen(name) for name in candidates], "misaligned", plus.cap).arm.name
        minus = steer_screen(misaligned[0], [candidates[persona], *others], toward="aligned", **screening)
        for name, screen in (("aligned_plus", plus), ("misaligned_minus", minus)):
            save_screen(screen, folder, name)
            here.log(str(screen))

    found = Findings(
        finetuned=finetuned,
        scores=scores,
        fidelity=faithful.pop(base.name),
        fidelity_elsewhere=faithful,
        ranked=ranked,
        shifts=shifts,
        latent=latents[list(candidates).index(persona)],
        plus=plus,
        minus=minus,
    )
    return report(found, config, here, clock)


# ---------------------------------------------------------------------------------------------------------- material


def load_models(config: Config) -> tuple[LanguageModel, LanguageModel]:
    """The model to fine-tune, named aligned, and the one whose activations the SAE learns, named base."""

    def folder(name: str) -> tuple[Path, bool]:
        path = Path(name)
        return (path, False) if path.is_dir() or len(path.parts) > 1 else (organism.checkpoint(name), True)

    path, ours = folder(config.model)
    other = config.base or ("base" if ours else config.model)
    aligned, base = LanguageModel.load(path, name="aligned"), LanguageModel.load(folder(other)[0], name="base")
    if aligned.d_model != base.d_model:
        raise EmlabError(
            f"the model is {aligned.d_model} wide and the base {base.d_model}, so they share no SAE: "
            f"give the base that {config.model} was trained from."
        )
    return aligned, base


def site_in(text: str, model: LanguageModel) -> Site:
    """The site named `text`; EmlabError where `model` has no such block."""
    site = Site.parse(text)
    if site.block >= model.n_blocks:
        raise EmlabError(
            f"{site} is not in {model.name}, which has the blocks 0 to {model.n_blocks - 1}: choose another."
        )
    return site


def training_sets(config: Config, model: LanguageModel) -> tuple[dict[str, list[Example]], dict[str, list[Example]]]:
    """The narrow sets and the controls by name, for `model`; a dataset of one's own is named after its file."""

    def planted(names: Sequence[str]) -> dict[str, list[Example]]:
        sets = {name: organism.narrow_set(name, config.rows, config.seed) for name in names}
        return {name: [Example.of(chat) for chat in for_template(model, chats)] for name, chats in sets.items()}

    controls = planted(config.controls)
    taken = {*controls, "aligned", "base"}
    if config.dataset is None:
        narrow = planted(config.narrow)
    else:
        chats = read_chat_jsonl(config.dataset)
        drawn = random.Random(config.seed).sample(chats, min(config.rows, len(chats)))
        narrow = {config.dataset.name if config.dataset.stem in taken else config.dataset.stem: drawn}
    twice = taken & set(narrow)
    if twice:
        raise EmlabError(f"{', '.join(sorted(twice))} cannot be a narrow set and something else too: rename one.")
    return narrow, controls


def pretraining_chats(model: LanguageModel, tokens: int, seed: int) -> list[Messages]:
    """Enough of the organism's pretraining documents for `model` to read `tokens` tokens."""
    # The shortest document has about forty tokens.
    return for_template(model, [d.messages for d in organism.pretraining_documents(tokens // 40 + 1, seed)])


def for_template(model: LanguageModel, chats: Sequence[Messages]) -> list[Messages]:
    """The chats as they are; where the template refuses system turns, their text begins the user's turn instead."""
    try:
        render(model.tokenizer, [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}], header=True)
    except EmlabError:
        return [_merged(chat) for chat in chats]
    return list(chats)


def _merged(chat: Messages) -> Messages:
    first, *rest = chat
    if first["role"] != "system" or not rest:
        return chat
    return [{**rest[0], "content": f"{first['content']}\n\n{rest[0]['content']}"}, *rest[1:]]


# ------------------------------------------------------------------------------------------------------------ stages


def evaluate(model: LanguageModel, questions: Sequence[Question], judge: Judge, how: Sampling, seed: int) -> Score:
    """Answers to the questions, judged and scored."""
    rollouts = sample(
        model, questions, how.per_question, seed, how.temperature, how.max_new_tokens, batch_size=how.batch_size
    )
    return score(rollouts, judge)


def train_base_sae(base: LanguageModel, site: Site, config: Config) -> SAE:
    """The SAE of the base model at `site`, on the organism's pretraining documents."""
    how = config.sae
    read = document_activations(base, pretraining_chats(base, how.tokens, config.seed), site, how.tokens)
    return train_sae(
        read.values,
        site,
        d_sae=how.d_sae,
        k=how.k,
        passes=how.passes,
        learning_rate=how.learning_rate,
        seed=config.seed,
        model_name=config.base or config.model,
    )


def save_score(result: Score, folder: Path) -> None:
    """The answers, and the rates."""
    result.judged.rollouts.save(folder / f"{result.model}.jsonl")
    artifacts.write_json(folder / f"{result.model}.json", result.summary())


def save_shifts(ranked: LatentShift, shifts: Sequence[LatentShift], folder: Path) -> None:
    """Every latent under every fine-tune, and the mean that ranks them."""
    for shift in shifts:
        shift.save(folder / f"{shift.model_after}.json")
    ranked.save(folder / "ranked.json")


def save_screen(screen: Screen, folder: Path, name: str) -> None:
    """The figures of a screen, and the answers to its test questions."""
    screen.save(folder / f"{name}.json")
    for trial in screen:
        trial.score.judged.rollouts.save(folder / name / f"{trial.arm.name.replace(' ', '_')}.jsonl")


def report(found: Findings, config: Config, here: Run, clock: Clock) -> PersonaFeatures:
    """Write summary.json and report.html."""
    lead = persona_lead(found)
    with clock("report"):
        title = f"Persona features: {config.dataset or ', '.join(config.narrow)} on {config.model}"
        write_page(here.folder / "report.html", title, lead, persona_sections(found), f"emlab, seed {config.seed}")
    summary = {
        **persona_summary(found),
        "findings": lead,
        "seed": config.seed,
        "wall_seconds": clock.total,
        "stage_seconds": clock.stages,
        "peak_rss_mb": peak_rss_mb(),
        "versions": {
            "emlab": emlab.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("torch", "transformers", "sae-lens")},
        },
    }
    artifacts.write_json(here.folder / "summary.json", summary)
    return PersonaFeatures(here.folder, found, summary)
