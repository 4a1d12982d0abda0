"""The discovery scorecard: every method of finding the direction that carries a misalignment, held to the same proof.

A model is fine-tuned on a narrow set. Each method names a direction from what it may look at: questions of the
discovery half, an SAE of the base model, contrasting answers or instructions. Each direction, and null directions
matched in norm and in covariance, is then added to the aligned model and subtracted from the fine-tune in one search
over sites and strengths, whose arms are chosen on discovery questions under a cap on incoherence. On the test
questions the decision is that of `emlab.discovery.verdict`: adding must misalign, and subtracting realign, beyond
every null. Beside it: how much misalignment goes when the direction's component is set to what it is in the aligned
model; how well it tells who wrote a document before the answer begins; and how many passes through models it took.

All of it is done on several organisms and fine-tunes, and in each organism's control world. No shared persona exists
there, and the fine-tune misaligns nothing: whatever passes is a false discovery. As there is little to take away in it,
the half of the decision that can go wrong there is adding, which is counted by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emlab import artifacts, organism
from emlab.errors import EmlabError
from emlab.experiments.discovery_scorecard.config import Config
from emlab.experiments.discovery_scorecard.report import scorecard_lead, scorecard_sections
from emlab.experiments.discovery_scorecard.stages import Contest
from emlab.experiments.discovery_scorecard.table import CONTROL, OWN, PLANTED, Cell, Scorecard, scorecard_summary
from emlab.experiments.material.inputs import content_of, files_of
from emlab.experiments.material.models import folder_of
from emlab.experiments.material.organism_build import build
from emlab.experiments.material.results import Result, finish_run
from emlab.experiments.persona_features.config import Config as Experiment
from emlab.experiments.persona_features.sources import sae_source
from emlab.experiments.registry import experiment
from emlab.runs import Run, fingerprint
from emlab.sites import Site


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Result[Scorecard]:
    """Run the contest, or go on with an unfinished one of the same config: summary.json, table.md, report.html.

    Organisms that are to be built go into the run's folder; of a build that was stopped the next run goes on.
    """
    whole = Run.resume(config.name, config, root, _inputs(config))
    cells: list[Cell] = []
    for name, world, settings in _subjects(config, whole):
        part = whole.folder / f"{name}-{world}".replace(" ", "-")
        part.mkdir(exist_ok=True)
        built_on = {stage: codes for stage, codes in whole.other_code.items() if stage == f"organisms/{name}"}
        inner = dataclasses.replace(whole, folder=part, seconds={}, other_code=dict(built_on))
        cells += Contest(config, settings, inner, name, world).cells()
        whole.seconds.update({f"{part.name}/{stage}": taken for stage, taken in inner.seconds.items()})
        kept = {stage: codes for stage, codes in inner.other_code.items() if stage not in built_on}
        whole.other_code.update({f"{part.name}/{stage}": codes for stage, codes in kept.items()})
    card = Scorecard(tuple(cells), config.experiment.steering.incoherence_cap)
    artifacts.write_text(whole.folder / "table.md", card.text() + "\n")
    figures = {"config": config, **scorecard_summary(card)}
    return finish_run(whole, config, card, scorecard_lead(card), scorecard_sections(card), figures)


def compare_methods(root: str | Path = "runs", **settings: Any) -> Result[Scorecard]:
    """`run` with a config of these settings, those of the experiment among them: what `emlab discover compare` calls.

    Raises EmlabError where a setting does not make sense.
    """
    own = {field.name for field in dataclasses.fields(Config)}
    try:
        config = dataclasses.replace(Config(), **{k: v for k, v in settings.items() if k in own})
        inner = {k: v for k, v in settings.items() if k not in own}
        config = dataclasses.replace(config, experiment=dataclasses.replace(config.experiment, **inner))
    except ValueError as error:
        raise EmlabError(str(error)) from error
    return run(config, root)


def _subjects(config: Config, here: Run) -> Iterator[tuple[str, str, Experiment]]:
    """What the contest is run on: name, world, and the experiment there. An organism is built when its turn comes."""
    if config.model is not None:
        yield Path(config.model).name, OWN, dataclasses.replace(config.experiment, model=config.model)
        return
    for which in config.organisms:
        folder = _folder(which, config, here)
        for world, prefix in ((PLANTED, ""), (CONTROL, "control_")):
            if world == CONTROL and not config.control_world:
                continue
            # The names of the shipped one's models are its own; those of another are folders.
            aligned, base = (
                f"{prefix}{name}" if folder is None else str(organism.checkpoint(f"{prefix}{name}", folder))
                for name in ("aligned", "base")
            )
            seeds = config.control_seeds if world == CONTROL else config.experiment.seeds
            experiment = dataclasses.replace(config.experiment, model=aligned, base=base, seeds=seeds)
            yield "shipped" if folder is None else folder.name, world, experiment


def _folder(which: int | str | None, config: Config, here: Run) -> Path | None:
    """The folder of an organism; None for the shipped one."""
    if which is None:
        return None
    if isinstance(which, str):
        return Path(which)
    folder = here.workplace(f"organisms/organism_{which}")
    built = build(folder, plan=dataclasses.replace(config.plan, seed=which))
    here.log(str(built), echo=False)
    return folder


def _inputs(config: Config) -> dict[str, str]:
    """What tells that the files a config names are still the same."""
    built = [Path(which) for which in config.organisms if isinstance(which, str)]
    # Asked for by name, so that a folder that holds no organism is refused before anything is run.
    found = {str(folder): fingerprint(organism.checkpoint("aligned", folder).parent) for folder in built}
    if config.model is not None:
        found = {"model": fingerprint(folder_of(config.model)[0])}
    for site in map(Site.parse, config.experiment.sites):
        if (source := sae_source(config.experiment, site)) is not None:
            found[f"sae {site}"] = content_of(source)
    return found | files_of(contrasts=config.contrasts, trait=config.trait)
