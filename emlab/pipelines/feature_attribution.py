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
from typing import Any, ClassVar, Literal

from emlab import artifacts
from emlab.discovery import (
    METHODS,
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
from emlab.models import LanguageModel, Prompt
from emlab.pipelines import _material as material
from emlab.pipelines import stages
from emlab.pipelines._contrasts import contrasts_of, load_metric
from emlab.pipelines._fidelity import ask_fidelity
from emlab.runs import Run, fingerprint
from emlab.saes import load_sae

START = "start"
"""As a baseline: the model before it was fine-tuned."""


@dataclass(frozen=True)
class Config:
    """A feature attribution."""

    pipeline: ClassVar[str] = "feature_attribution"
    sae: Path
    """A folder in SAELens' format."""
    name: str = "feature_attribution"
    """Names the run folder."""
    seed: int = 0
    """Everything random follows from it."""
    model: str = "aligned"
    """A checkpoint of the organism, a local Hugging Face folder, or a name on the Hub."""
    chat_template: str | None = None
    """For a model that has no chat template: a file, or "plain"."""
    narrow: str | None = None
    """A fine-tuning set of the organism, or a dataset, on which the model is fine-tuned first."""
    site: str | None = None
    """Where the SAE reads; by default where it was trained."""
    contrasts: Path | None = None
    """A JSONL file of prompt, misaligned and aligned; by default the organism's own answers."""
    prompts: str | None = None
    """A question set (broad, profile, or a file) in place of contrasts: then a metric must be named."""
    cases: int = 24
    """Contrasts or prompts, evenly spaced over those there are."""
    metric: str | None = None
    """package.module:function or path/to/file.py:function, of the logits (rows, position, vocabulary) of one case and,
    if it takes a second argument, their tokens; by default the log-probability of misaligned minus aligned."""
    methods: tuple[str, ...] = METHODS
    """Some of gradient, integrated, patching."""
    baseline: str = "zero"
    """zero, mean, start (the model before it was fine-tuned), or another model by name or folder."""
    positions: str = "all"
    """On which tokens latents count: all, prompt, header, generated, sentence."""
    steps: int = 3
    """Of integrated: points on the way of each block."""
    blocks: int = 16
    """Of integrated: blocks into which latents are dealt; 1 is the joint way of Marks et al."""
    batch_size: int = 32
    """Rows that go through the model at a time."""
    exact: int | Literal["all"] | None = 40
    """How many of the latents that each method finds strongest are ablated one by one; all; or null for none."""
    random: int = 100
    """Random directions of matched norm, for the noise of an ablation; they are not drawn where nothing is ablated."""

    def __post_init__(self) -> None:
        unknown = [m for m in self.methods if m not in METHODS]
        if unknown or not self.methods:
            said = f"has {unknown[0]!r}, which is none" if unknown else "is empty"
            raise ValueError(f"'methods' {said}; choose some of {', '.join(METHODS)}.")
        for key in ("cases", "steps", "blocks", "batch_size", "random"):
            if getattr(self, key) < 1:
                raise ValueError(f"'{key}' is {getattr(self, key)} and must be 1 or more.")
        if self.prompts is not None and (self.metric is None or self.contrasts is not None):
            raise ValueError("'prompts' goes with a 'metric' and without 'contrasts'; mend one of them.")
        if self.baseline == START and self.narrow is None:
            raise ValueError("'baseline' is start, and nothing is fine-tuned; name a set as 'narrow'.")


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


def run(config: Config, root: str | Path = "runs") -> FeatureAttribution:
    """Run the attribution, or go on with an unfinished one of the same config; a folder a stage, and summary.json."""
    sae = load_sae(config.sae)
    here = Run.resume(config.name, config, root, _inputs(config))
    model = start = _model(config.model, config.chat_template)
    if config.narrow is not None:
        model = _fine_tuned(config, here)
    site = material.sae_site_in(config.site, sae, model)
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

        found[method] = here.stage(f"attribution/{method}", work, lambda f: Attribution.load(f / "attribution.json"))
    exact, agreements = None, []
    if config.exact is not None:
        many = None if config.exact == "all" else sorted({j for a in found.values() for j in a.top(int(config.exact))})

        def check(folder: Path) -> None:
            exact_effects(model, sae, asked, site, many, **given).save(folder / "exact.json")  # type: ignore[arg-type]
            noise = random_effects(model, sae, asked, site, config.random, config.seed, **given)  # type: ignore[arg-type]
            noise.save(folder / "noise.json")

        exact, noise = here.stage(
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
        stages.finetune(config.model, str(config.narrow), folder / "model", seed=config.seed, whole=False)

    def read(folder: Path) -> LanguageModel:
        return LanguageModel.load(folder / "model", name=Path(str(config.narrow)).stem)

    return here.stage("finetune", work, read)


def _model(name: str, chat_template: str | None) -> LanguageModel:
    return LanguageModel.load(material.folder_of(name)[0], name=Path(name).name, chat_template=chat_template)


def _inputs(config: Config) -> dict[str, str]:
    """What tells that the files a config names are still the same."""
    found = {"model": fingerprint(material.folder_of(config.model)[0]), "sae": fingerprint(config.sae)}
    if config.baseline not in ("zero", "mean", START):
        found["baseline"] = fingerprint(material.folder_of(config.baseline)[0])
    files = {"contrasts": config.contrasts, "prompts": config.prompts, "narrow": config.narrow}
    files["metric"] = None if config.metric is None else config.metric.rpartition(":")[0]
    for key, path in files.items():
        if path is not None and artifacts.place(path).is_file():
            found[key] = artifacts.sha256(path)
    return found


def attribute_with(root: str | Path = "runs", **settings: Any) -> FeatureAttribution:
    """`run` with a config of these settings: what `emlab discover attribute` calls."""
    try:
        config = dataclasses.replace(Config(Path(settings.pop("sae"))), **settings)
    except ValueError as error:
        raise EmlabError(str(error)) from error
    return run(config, root)
