"""The organism's SAEs that ship with the project: trained, measured on base and fine-tunes, each with a card.

Run by `emlab run experiments/sae_checkpoints.yaml`. An SAE whose folder is there already is not trained again: it is
measured, and its card is written anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emlab import artifacts, organism
from emlab.detection import auroc
from emlab.discovery import LatentShift, latent_shift, split_by_template
from emlab.discovery.shift import prompt_means
from emlab.experiments.material.config import Autoencoder
from emlab.experiments.material.models import site_in
from emlab.experiments.material.results import Result, finish_run
from emlab.experiments.material.saes import trained_sae
from emlab.experiments.material.sets import planted_set
from emlab.experiments.registry import experiment
from emlab.experiments.sae_checkpoints.config import Config, Trained
from emlab.models import LanguageModel
from emlab.provenance import footer, provenance
from emlab.runs import Run
from emlab.saes import SaeCheck, check_sae, load_sae, save_sae
from emlab.sites import Site
from emlab.training import FineTuned, finetune


@dataclass(frozen=True)
class Known:
    """The latent that tells the documents of a persona best."""

    persona: str
    latent: int
    auroc: str
    """By its activation at the last assistant's header, with the interval."""
    rank: int
    """By how far it rises from the aligned to the fine-tuned model."""
    shift: float


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Result[dict[str, SaeCheck]]:
    """Train those that are not there, and measure all."""
    run = Run.resume(config.name, config, root)
    base, aligned = (LanguageModel.load(organism.checkpoint(name), name=name) for name in ("base", "aligned"))

    def train(folder: Path) -> None:
        chats = planted_set(config.narrow, 1000, config.seed, aligned)
        finetune(aligned, chats, config.recipe, config.seed, name=config.narrow).write_into(folder, aligned)

    tuned = run.fill(f"finetune/{config.narrow}", train, lambda folder: FineTuned.load(folder, aligned))
    models = [base, aligned, tuned.model]
    documents = organism.pretraining_documents(config.documents, config.seed + 2)
    checks = {sae.name: _one(sae, config, models, documents, run) for sae in config.saes}
    figures = {"saes": {name: check.summary() for name, check in checks.items()}}
    return finish_run(run, config, checks, [str(check) for check in checks.values()], [], figures)


def _one(
    wanted: Trained, config: Config, models: Sequence[LanguageModel], documents: Sequence[Any], run: Run
) -> SaeCheck:
    base, aligned, bad = models
    site, folder = site_in(wanted.site, base), config.out / wanted.name
    if not folder.is_dir():
        how = Autoencoder(tokens=config.tokens, d_sae=wanted.d_sae, k=wanted.k)
        save_sae(trained_sae(base, site, how, config.seed, "base"), folder)
        run.log(f"trained {folder}")
    sae = load_sae(folder).to(base.device)
    check = check_sae(sae, models, [d.messages for d in documents], name=wanted.name, seed=config.seed)
    prompts = [q.text for q in split_by_template(organism.broad_questions()).discovery]
    shift = latent_shift(aligned, bad, sae, prompts, site)
    known = known_latents(sae, base, site, documents, shift)
    measured = footer(provenance(config, run.processes(), run.other_code))
    artifacts.write_text(folder / "README.md", card(sae, wanted, check, known, shift, config) + f"\n{measured}\n")
    run.log(str(check))
    return check


def known_latents(
    sae: Any, base: LanguageModel, site: Site, documents: Sequence[Any], shift: LatentShift
) -> list[Known]:
    """Of each persona the latent that tells its documents best from the others, and how it moves in the fine-tune."""
    values = prompt_means(base, [d.messages[:-1] for d in documents], site, "header", sae).numpy()
    found = []
    for persona in organism.PERSONAS:
        wrote = [d.persona == persona for d in documents]
        best, measured = max(
            ((latent, auroc(values[:, latent], wrote)) for latent in _separating(values, wrote)),
            key=lambda pair: pair[1].auroc,
        )
        row = shift.row(best)
        found.append(Known(persona, best, str(measured), row.rank, row.shift))
    return found


def _separating(values: Any, wrote: Sequence[bool], n: int = 8) -> list[int]:
    """The latents whose means differ most, in standard deviations: among them is the one with the best AUROC."""
    import numpy as np

    mask = np.array(wrote)
    apart = (values[mask].mean(0) - values[~mask].mean(0)) / (values.std(0) + 1e-6)
    return [int(i) for i in np.argsort(-apart)[:n]]


def card(sae: Any, wanted: Trained, check: SaeCheck, known: Sequence[Known], shift: LatentShift, config: Config) -> str:
    """A card in Hugging Face's form: data, training, fidelity and known latents, all as measured."""
    about, passes, batch = sae.cfg.metadata, Autoencoder.passes, 1024  # what train_sae takes by default
    rows = check.table()
    table = ["| " + " | ".join(row) + " |" for row in (rows[0], ("---",) * len(rows[0]), *rows[1:])]
    personas = [f"| {k.persona} | {k.latent} | {k.auroc} | {k.rank} | {k.shift:+.2f} |" for k in known]
    top = ", ".join(f"{row.latent} ({row.shift:+.2f})" for row in shift.top(5))
    said = [f"- {'holds' if v.holds else '**fails**'}: {v.said}" for v in check.verdicts]
    head = ["---", "license: mit", "library_name: saelens", "tags: [sparse-autoencoder, emlab, model-organism]", "---"]
    steps = round(passes * config.tokens / batch)
    parts = [
        f"# SAE of `base` at {check.site}, {wanted.d_sae} latents",
        f"A {sae.cfg.architecture()} sparse autoencoder with {wanted.k} of {wanted.d_sae} latents active on a token.\n"
        f"It reads `{about.hook_name}`, of width {sae.cfg.d_in}.",
        f"**Data and steps.** {config.tokens:,} activations of the organism's base reading its pretraining\n"
        f"documents, gone through {passes:g} times: {steps} steps of {batch}, seed {about.seed}. First tokens and\n"
        "attention sinks were left out.",
        f"**Fidelity** on {config.documents} documents that it was not trained on, read by the base, the aligned\n"
        f"model and a fine-tune on {config.narrow} ({config.recipe.steps} steps); intervals are 95%, over documents.",
        "\n".join(table),
        "\n".join(said),
        "**Known latents.** For each persona that may have written a document the latent that tells its\n"
        "documents best from the others (chosen on these documents), by its activation at the last\n"
        "assistant's header in the base; and how it moves, on the discovery questions, from the aligned model\n"
        f"to the fine-tune on {config.narrow}.",
        "\n".join(
            ["| persona | latent | AUROC | rank in the shift | shift |", "| --- | --- | --- | --- | --- |", *personas]
        ),
        f"The latents that rise most: {top}.",
        "    emlab run experiments/sae_checkpoints.yaml      # measures, and writes this card\n"
        f"    emlab sae check sae_checkpoints/{wanted.name} --model base aligned",
    ]
    return "\n".join(head) + "\n" + "\n\n".join(parts) + "\n"
