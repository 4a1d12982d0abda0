"""Feature attribution: how much of a metric of a model's logits is due to each SAE latent, at every position.

The metric is, unless another is named, the log-probability of a misaligned answer minus that of an aligned one to the
same question. Every method of `emlab.discovery.attribution` estimates the effect of all latents, and exact ablation of
the strongest, or of all, checks it. With another model as baseline what is attributed is the difference of the two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from emlab.discovery import (
    Agreement,
    Attribution,
    AttributionTarget,
    Contrast,
    Noise,
    agreement,
    attribute,
    attribution_summary,
    exact_effects,
    random_effects,
    spread,
)
from emlab.errors import EmlabError
from emlab.evaluation.protocol import questions_of
from emlab.experiments.feature_attribution.config import START, Config
from emlab.experiments.material.contrasts import contrasts_of, load_metric
from emlab.experiments.material.fidelity import ask_fidelity
from emlab.experiments.material.fine_tune import finetune
from emlab.experiments.material.inputs import content_of, files_of
from emlab.experiments.material.models import folder_of, model_named
from emlab.experiments.material.results import Result, finish_run
from emlab.experiments.material.saes import sae_site_in
from emlab.experiments.registry import experiment
from emlab.models import LanguageModel, Prompt
from emlab.runs import Run, fingerprint
from emlab.saes import load_sae


@dataclass(frozen=True, eq=False)
class Attributions:
    """What was attributed, by every method."""

    attributions: Mapping[str, Attribution]
    """By method."""
    exact: Attribution | None
    agreements: tuple[Agreement, ...]
    """Of each method with the exact effects, over the latents that were ablated."""

    def text(self) -> str:
        """The strongest latents by each method, and how well it agrees with exact ablation."""
        parts = [str(found) for found in self.attributions.values()]
        parts += [] if self.exact is None else [str(self.exact)]
        return "\n\n".join([*parts, *map(str, self.agreements)]) + "\n"


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Result[Attributions]:
    """Run the attribution, or go on with an unfinished one of the same config; a folder a stage, and summary.json."""
    sae = load_sae(config.sae)
    run = Run.resume(config.name, config, root, _inputs(config))
    model = start = model_named(config.model, config.chat_template)
    if config.narrow is not None:
        model = _fine_tuned(config, run)
    site = sae_site_in(config.site, sae, model)
    asked: Any = _asked(config)
    baseline: str | LanguageModel = config.baseline
    if config.baseline == START:
        baseline = start
    elif config.baseline not in ("zero", "mean"):
        baseline = model_named(config.baseline, config.chat_template)
    prompts = [case.prompt for case in asked] if config.prompts is None else asked
    answers = [case.misaligned for case in asked] if config.prompts is None else None
    ask_fidelity(sae, config.sae, site, [model], prompts, answers)
    metric = None if config.metric is None else load_metric(config.metric)
    target = AttributionTarget(metric, baseline, config.positions, config.batch_size)
    found: dict[str, Attribution] = {}
    for method in config.methods:
        steps: dict[str, Any] = {"steps": config.steps, "blocks": config.blocks} if method == "integrated" else {}
        work = partial(attribute, model, sae, asked, site, method, target, **steps)  # type: ignore[arg-type]
        found[method] = _kept(run, f"attribution/{method}", work)
    exact, agreements = None, []
    if config.exact is not None:
        many = None if config.exact == "all" else sorted({j for a in found.values() for j in a.top(int(config.exact))})
        exact = _kept(run, "exact", partial(exact_effects, model, sae, asked, site, many, target))
        drawn = partial(random_effects, model, sae, asked, site, config.random, config.seed, target)
        noise = run.stage("noise", drawn, Noise)
        top = min(20, len(exact.effects) if many is None else len(many))
        agreements = [agreement(a, exact, noise.level, top, many) for a in found.values()]
    figures = {
        "methods": {name: attribution_summary(each) for name, each in found.items()},
        "exact": None if exact is None else attribution_summary(exact),
        "agreement": agreements,
    }
    return finish_run(run, config, Attributions(found, exact, tuple(agreements)), [], [], figures)


def _asked(config: Config) -> Sequence[Contrast] | Sequence[Prompt]:
    if config.prompts is None:
        return contrasts_of(config.contrasts, config.cases, config.seed)
    return [question.messages for question in spread(tuple(questions_of(config.prompts)), config.cases)]


def _kept(run: Run, stage: str, work: Callable[[], Attribution]) -> Attribution:
    """A stage in whose folder an attribution lies as JSON, its table beside it."""
    name = "attribution.json"
    return run.fill(stage, lambda folder: work().save(folder / name), lambda folder: Attribution.load(folder / name))


def _fine_tuned(config: Config, run: Run) -> LanguageModel:
    """The model after its fine-tune, a stage of the run."""
    data = str(config.narrow)
    return run.fill(
        "finetune",
        lambda folder: finetune(config.model, data, folder / "model", seed=config.seed, whole=False),
        lambda folder: LanguageModel.load(folder / "model", name=Path(data).stem),
    )


def _inputs(config: Config) -> dict[str, str]:
    """What tells that the files a config names are still the same."""
    found = {"model": fingerprint(folder_of(config.model)[0]), "sae": content_of(config.sae)}
    if config.baseline not in ("zero", "mean", START):
        found["baseline"] = fingerprint(folder_of(config.baseline)[0])
    metric = config.metric and config.metric.rpartition(":")[0]
    return found | files_of(contrasts=config.contrasts, prompts=config.prompts, narrow=config.narrow, metric=metric)


def attribute_with(root: str | Path = "runs", **settings: Any) -> Result[Attributions]:
    """`run` with a config of these settings: what `emlab discover attribute` calls."""
    try:
        config = dataclasses.replace(Config(Path(settings.pop("sae"))), **settings)
    except ValueError as error:
        raise EmlabError(str(error)) from error
    return run(config, root)
