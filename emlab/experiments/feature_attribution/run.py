"""Feature attribution: how much of a metric of a model's logits is due to each SAE latent, at every position.

The metric is, unless another is named, the log-probability of a misaligned answer minus that of an aligned one to the
same question. Every method of `emlab.discovery.attribution` estimates the effect of all latents, and exact ablation of
the strongest, or of all, checks it. With another model as baseline what is attributed is the difference of the two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emlab import artifacts
from emlab.discovery import (
    Agreement,
    Attribution,
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
from emlab.experiments.material.inputs import files_of
from emlab.experiments.material.models import folder_of
from emlab.experiments.material.saes import sae_site_in
from emlab.experiments.registry import experiment
from emlab.models import LanguageModel, Prompt
from emlab.runs import Run, fingerprint
from emlab.saes import load_sae


@dataclass(frozen=True, eq=False)
class FeatureAttribution:
    """What was attributed, and where it lies."""

    folder: Path
    attributions: Mapping[str, Attribution]
    """By method."""
    exact: Attribution | None
    agreements: tuple[Agreement, ...]
    """Of each method with the exact effects, over the latents that were ablated."""

    def summary(self) -> dict[str, Any]:
        """The figures as plain values."""
        return {
            "methods": {name: attribution_summary(found) for name, found in self.attributions.items()},
            "exact": None if self.exact is None else attribution_summary(self.exact),
            "agreement": self.agreements,
        }

    def __str__(self) -> str:
        parts = [str(found) for found in self.attributions.values()]
        parts += [] if self.exact is None else [str(self.exact)]
        return "\n\n".join([*parts, *map(str, self.agreements), f"Results: {self.folder}"])


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> FeatureAttribution:
    """Run the attribution, or go on with an unfinished one of the same config; a folder a stage, and summary.json."""
    sae = load_sae(config.sae)
    here = Run.resume(config.name, config, root, _inputs(config))
    model = start = _model(config.model, config.chat_template)
    if config.narrow is not None:
        model = _fine_tuned(config, here)
    site = sae_site_in(config.site, sae, model)
    asked: Sequence[Contrast] | Sequence[Prompt] = _asked(config)
    baseline: str | LanguageModel = config.baseline
    if config.baseline == START:
        baseline = start
    elif config.baseline not in ("zero", "mean"):
        baseline = _model(config.baseline, config.chat_template)
    if config.prompts is None:
        contrasts: Sequence[Contrast] = asked  # type: ignore[assignment]
        ask_fidelity(sae, config.sae, site, [model], [c.prompt for c in contrasts], [c.misaligned for c in contrasts])
    else:
        ask_fidelity(sae, config.sae, site, [model], asked)  # type: ignore[arg-type]
    given = {
        "metric": None if config.metric is None else load_metric(config.metric),
        "baseline": baseline,
        "positions": config.positions,
        "batch_size": config.batch_size,
    }
    found: dict[str, Attribution] = {}
    for method in config.methods:

        def work(folder: Path, method: str = method) -> None:
            how = {"steps": config.steps, "blocks": config.blocks} if method == "integrated" else {}
            attribute(model, sae, asked, site, method, **given, **how).save(folder / "attribution.json")  # type: ignore[arg-type]

        found[method] = here.fill(f"attribution/{method}", work, lambda f: Attribution.load(f / "attribution.json"))
    exact, agreements = None, []
    if config.exact is not None:
        many = None if config.exact == "all" else sorted({j for a in found.values() for j in a.top(int(config.exact))})

        def check(folder: Path) -> None:
            exact_effects(model, sae, asked, site, many, **given).save(folder / "exact.json")  # type: ignore[arg-type]
            noise = random_effects(model, sae, asked, site, config.random, config.seed, **given)  # type: ignore[arg-type]
            noise.save(folder / "noise.json")

        exact, noise = here.fill(
            "exact", check, lambda f: (Attribution.load(f / "exact.json"), Noise.load(f / "noise.json"))
        )
        top = min(20, len(exact.effects) if many is None else len(many))
        agreements = [agreement(a, exact, noise.level, top, many) for a in found.values()]
    done = FeatureAttribution(here.folder, found, exact, tuple(agreements))
    artifacts.write_json(here.folder / "summary.json", done.summary())
    here.finish()
    return done


def _asked(config: Config) -> Sequence[Contrast] | Sequence[Prompt]:
    if config.prompts is None:
        return contrasts_of(config.contrasts, config.cases, config.seed)
    questions = questions_of(config.prompts)
    return [question.messages for question in spread(tuple(questions), config.cases)]


def _fine_tuned(config: Config, here: Run) -> LanguageModel:
    """The model after its fine-tune, a stage of the run."""

    def work(folder: Path) -> None:
        finetune(config.model, str(config.narrow), folder / "model", seed=config.seed, whole=False)

    def read(folder: Path) -> LanguageModel:
        return LanguageModel.load(folder / "model", name=Path(str(config.narrow)).stem)

    return here.fill("finetune", work, read)


def _model(name: str, chat_template: str | None) -> LanguageModel:
    return LanguageModel.load(folder_of(name)[0], name=Path(name).name, chat_template=chat_template)


def _inputs(config: Config) -> dict[str, str]:
    """What tells that the files a config names are still the same."""
    found = {"model": fingerprint(folder_of(config.model)[0]), "sae": fingerprint(config.sae)}
    if config.baseline not in ("zero", "mean", START):
        found["baseline"] = fingerprint(folder_of(config.baseline)[0])
    metric = config.metric and config.metric.rpartition(":")[0]
    return found | files_of(contrasts=config.contrasts, prompts=config.prompts, narrow=config.narrow, metric=metric)


def attribute_with(root: str | Path = "runs", **settings: Any) -> FeatureAttribution:
    """`run` with a config of these settings: what `emlab discover attribute` calls."""
    try:
        config = dataclasses.replace(Config(Path(settings.pop("sae"))), **settings)
    except ValueError as error:
        raise EmlabError(str(error)) from error
    return run(config, root)
