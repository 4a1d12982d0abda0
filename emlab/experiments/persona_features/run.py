"""Persona features: does a narrow fine-tune misalign a model broadly, and does one SAE latent carry it?

After Betley et al. 2025 (arXiv:2502.17424) and Wang et al. 2025 (arXiv:2506.19823). A model is fine-tuned on narrow
sets and on controls, and its answers to broad questions are judged. Latents of a sparse autoencoder of the base model
are ranked by how far the narrow fine-tunes move them. The leading ones are added to the aligned model, and the one that
misaligns most, the candidate, is subtracted from a misaligned model, both beside the mean difference and random
directions that go through the same search. The candidate is then ablated, set to its natural value, tried on a
fine-tune that nothing was chosen on, and used as a monitor; the misaligned model is re-aligned. A verdict says whether
all of it amounts to a persona latent.

Broad questions are divided by template: whatever is chosen (latent, site, positions, strength) is chosen on the
discovery half, and every rate that is reported is from the test half. Of a sealed run it is chosen on fine-tunes of its
own, too, and what is reported is of others, on sealed questions and documents; latent shifts are read on discovery
questions in every run.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from emlab.discovery import Verdict, behaviour_test, cause_test, shift_test
from emlab.experiments.material.config import Autoencoder
from emlab.experiments.material.models import site_in
from emlab.experiments.material.results import Result, finish_run
from emlab.experiments.material.sealing import open_seal
from emlab.experiments.persona_features.config import Config
from emlab.experiments.persona_features.findings import Findings
from emlab.experiments.persona_features.report import (
    persona_lead,
    persona_picture,
    persona_sections,
    persona_tiles,
)
from emlab.experiments.persona_features.sources import inputs_of, load_models, training_sets
from emlab.experiments.persona_features.stages import Bench, fidelity_of
from emlab.experiments.persona_features.summary import persona_summary
from emlab.experiments.registry import experiment
from emlab.interventions.direction import RANDOM
from emlab.runs import Run, check_once


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Result[Findings]:
    """Run the experiment, or go on with an unfinished one of the same config: a folder a stage, summary.json, report.

    Every stage is read back from disk, so that a run that was stopped ends with the figures of one that was not.
    """
    inputs = inputs_of(config)
    check_once(config.name, config, root, inputs)
    aligned, base = load_models(config)
    sites = [site_in(text, base) for text in config.sites]
    sets = training_sets(config, aligned, config.reported(config.seed))
    here = Run.resume(config.name, config, root, inputs)
    bench = Bench(config, here, aligned, base)
    open_seal(here, config)
    bench.say_size(sets, sites)

    finetuned, kinds = bench.finetune(sets, bench.seed)
    searched = finetuned
    if config.sealed:  # what is searched for is found on fine-tunes that are not reported
        own = training_sets(config, aligned, config.seed)
        searched, _ = bench.finetune(own, config.seed, "searched", follow=False)
    scores = bench.evaluate(finetuned)
    saes, faithful = bench.autoencoders(sites, searched)
    usable = [site for site in sites if bench.faithful(faithful, site)]
    found = Findings(
        finetuned,
        kinds,
        scores,
        faithful,
        persona=bench.persona(usable, saes, finetuned, kinds, scores, searched) if usable else None,
        realignment=bench.realign(finetuned[bench.first(kinds)]),
        verdict=Verdict(()),
    )
    found = dataclasses.replace(found, verdict=verdict(found, config.sae))
    here.log(str(found.verdict))
    figures = {**persona_summary(found), "seed": config.seed}
    parts = (persona_lead(found), persona_sections(found), figures)
    return finish_run(here, config, found, *parts, tiles=persona_tiles(found), picture=persona_picture(found))


def verdict(found: Findings, sae: Autoencoder | None = None) -> Verdict:
    """Whether a persona latent was found, by the tests of `emlab.discovery.verdict`."""
    narrow, controls = found.of_kind("narrow"), found.of_kind("control")
    aligned = found.scores[0]
    tests = [behaviour_test(aligned, [found.score(n) for n in narrow], [found.score(n) for n in controls])]
    persona = found.persona
    best = persona.site if persona is not None else found.fidelity[0].site
    tests.append(fidelity_of(found.fidelity, best, sae or Autoencoder()))
    if persona is not None:
        by_name = {s.model_after: s for s in persona.shifts}
        tests += [
            shift_test(persona.latent, [by_name[n] for n in narrow], [by_name[n] for n in controls]),
            cause_test(persona.plus, persona.name, RANDOM, aligned),
            cause_test(persona.minus, persona.name, RANDOM, found.score(persona.minus.model)),
        ]
    return Verdict(tuple(tests))
