"""What the configs of experiments share: fields, and the checks of fields."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

from emlab.discovery import ScreenSettings
from emlab.evaluation import Sampling
from emlab.evaluation.protocol import BROAD, Judging
from emlab.sealing import is_reserved, sealed_seed
from emlab.training import Recipe


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Of any experiment; a subclass states `pipeline` and a `title`, and gives fields other defaults as it needs."""

    pipeline: ClassVar[str]
    seals: ClassVar[bool] = False
    """Whether it can be run sealed."""
    name: str = ""
    """Names the run folder; by default the pipeline's name."""
    title: str = ""
    """Of the report."""
    summary: Path | None = None
    """A file that summary.json is written to as well."""
    sealed: bool = False
    """A final run: what is reported is measured on questions, fine-tunes and documents that nothing else touches (see
    `emlab.sealing`). Choose before it, and write down what was chosen."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.pipeline)
        if self.sealed and not self.seals:
            raise ValueError(f"'sealed' is true, and {self.pipeline} reports nothing on sealed material; leave it out.")
        for key, seed in _seeds(self):
            if is_reserved(seed):
                raise ValueError(
                    f"'{key}' has {seed}, a seed of sealed runs; give another, or 'sealed: true', which takes those by "
                    "itself."
                )

    @property
    def heading(self) -> str:
        """What stands over the report."""
        return self.title

    def reported(self, seed: int) -> int:
        """The seed of what is reported: in a sealed run the reserved one that stands for `seed`."""
        return sealed_seed(seed) if self.sealed else seed


@dataclass(frozen=True, kw_only=True)
class BehaviourConfig(ExperimentConfig):
    """Of one that asks a model questions and has the answers judged."""

    model: str = "aligned"
    """The model that is worked on: a checkpoint of the organism, a local Hugging Face folder, or a name on the Hub."""
    chat_template: str | None = None
    """For a model that has no chat template: a file, or "plain"."""
    question_set: str = "broad"
    """The questions: broad (the organism's), profile (emlab's own), a file of questions, or a published one by the name
    that `emlab data list` gives it (it is fetched)."""
    variants: tuple[str, ...] = ()
    """Forms of these questions that are asked, for example plain; none named: the plain ones of emlab's own sets, and
    all of a file."""
    judging: Judging = field(default_factory=Judging)
    """Who judges the answers: the organism's exact judge, or any other."""
    questions: int | None = None
    """Test questions asked, evenly spaced over domains and templates; null asks all."""
    answers: Sampling = field(default_factory=lambda: Sampling(per_question=1))
    """How answers to the test questions are sampled."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sealed and self.question_set.rpartition(":")[2] != BROAD:
            raise ValueError(
                f"'sealed' is true, and no questions of {self.question_set!r} are sealed; leave it out, or take "
                "'question_set' broad."
            )

    @property
    def heading(self) -> str:
        return f"{self.title}: {self.model}"


@dataclass(frozen=True, kw_only=True)
class FineTuningConfig(BehaviourConfig):
    """Of one that fine-tunes the model before it is asked."""

    rows: int = 1000
    """Chats that each fine-tune is trained on; of a larger dataset this many are drawn."""
    recipe: Recipe = field(default_factory=lambda: Recipe(learning_rate=4e-3, batch_size=16, steps=60))
    """How every model is fine-tuned."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, self, "rows")


@dataclass(frozen=True)
class Arm:
    """One kind of training; a subclass says which. It is done with every seed."""

    name: str
    """Names its folders and its rows in tables."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"'name' is {self.name!r}; an arm's name has letters, digits, '_', '-' and '.' only.")


@dataclass(frozen=True, kw_only=True)
class Screening:
    """The screen: how strongly directions are added or subtracted, on which tokens, beside how many random ones."""

    strengths: tuple[float, ...] = (0.3, 0.6, 0.9, 1.2, 1.5)
    """In units of the site's median residual norm, the same for every direction."""
    positions: tuple[str, ...] = ("sentence",)
    """Where edits may act: sentence (the assistant's header and every sentence end), header, generated, prompt, all."""
    random: int = 20
    """Random directions that go through the same search."""
    incoherence_cap: float = 0.1
    """An arm is chosen among those with at most this share of incoherent answers."""
    questions: int | None = 120
    """Discovery questions, evenly spaced, on which arms are chosen; null takes all."""
    first_round: int | None = 20
    """Of these, the ones that every arm is asked in the first round; null takes all."""
    finalists: int = 3
    """Each direction's leading arm of the first round and the next weaker ones, so many in all, are asked all of the
    discovery questions; of one that has not misaligned an answer the strongest within the cap alone."""

    def search(self, sampling: Sampling) -> ScreenSettings:
        """As `steer_screen` takes it; `sampling` is that of the test."""
        rounds = (self.incoherence_cap, self.first_round, self.finalists)
        return ScreenSettings(self.strengths, self.positions, *rounds, sampling)


@dataclass(frozen=True)
class Autoencoder:
    """The SAE at each site: loaded, or a TopK one trained on the base model's activations."""

    load: str = "auto"
    """An SAE's folder, or a release and an id of SAELens' list (see `emlab.load_sae`), {site} in it standing for the
    site and {block} for its block; "none" trains one; "auto" takes the SAE that ships with the project where it fits,
    and trains one otherwise."""
    least_variance: float = 0.5
    """Latents are not ranked at a site where the SAE explains less than this share of the variance of any model, on all
    tokens or on those where latents are ranked (`shift_positions`)."""
    most_drop: float = 0.25
    """Nor where it explains so much less of any model than of the base. See `emlab.saes.Bounds`."""
    tokens: int = 300_000
    """Activations to train on."""
    test_tokens: int = 20_000
    """Activations of other documents, on which fidelity is measured; no more documents are read than these take."""
    d_sae: int = 512
    """Latents."""
    k: int = 16
    """Latents active on a token."""
    passes: float = 2.0
    """How often each activation is seen."""
    learning_rate: float = 2e-3


def check_text(config: Any) -> None:
    """ValueError where a sealed config takes its documents from a dataset."""
    if config.sealed and config.text is not None:
        raise ValueError(f"'sealed' is true, and no documents of 'text' ({config.text}) are sealed; leave out either.")


def check_inner(config: Any) -> None:
    """ValueError where not the config but the experiment in it is sealed."""
    if config.experiment.sealed:
        mend = "write 'sealed: true' beside 'experiment', for all of it" if config.seals else "leave it out"
        raise ValueError(f"'experiment.sealed' is true; {mend}.")


def check_at_least(least: float, config: Any, *keys: str) -> None:
    """ValueError where a field of `config` is less; a key may be dotted, and null is nothing to check."""
    for key, value in _fields(config, keys):
        if value is not None and value < least:
            raise ValueError(f"'{key}' is {value} and must be {least} or more.")


def check_between(low: float, high: float, config: Any, *keys: str) -> None:
    """ValueError where a field of `config` does not lie between the two."""
    for key, value in _fields(config, keys):
        if not low < value < high:
            raise ValueError(f"'{key}' is {value}; give a share between {low} and {high}.")


def check_filled(config: Any, *keys: str) -> None:
    """ValueError where a field of `config` is an empty list or text."""
    for key, value in _fields(config, keys):
        if not value:
            raise ValueError(f"'{key}' is empty; name at least one.")


def check_distinct(config: Any, *keys: str) -> None:
    """ValueError where a list among the fields of `config` is empty, or has an entry (or two of one name) twice."""
    check_filled(config, *keys)
    for key, value in _fields(config, keys):
        names = [getattr(entry, "name", entry) for entry in value]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"'{key}' names {twice[0]!r} twice; name each once.")


def check_known(known: Collection[str], config: Any, *keys: str) -> None:
    """ValueError where a field of `config` is, or is a list or mapping with, a name that is not among the `known`."""
    for key, value in _fields(config, keys):
        if isinstance(value, str) and value not in known:
            raise ValueError(f"'{key}' is {value!r}; choose one of {', '.join(known)}.")
        if not isinstance(value, str) and (unknown := sorted(set(value) - set(known))):
            raise ValueError(f"'{key}' has {unknown[0]!r}, which is none; choose some of {', '.join(known)}.")


def _seeds(config: Any, inside: str = "") -> Iterator[tuple[str, int]]:
    """The seeds that a config names, and where."""
    for one in fields(config):
        value, key = getattr(config, one.name), f"{inside}{one.name}"
        if is_dataclass(value):
            yield from _seeds(value, f"{key}.")
        elif one.name.endswith(("seed", "seeds")):
            yield from ((key, seed) for seed in (value if isinstance(value, tuple) else (value,)) if seed is not None)


def _fields(config: Any, keys: tuple[str, ...]) -> list[tuple[str, Any]]:
    return [(key, attrgetter(key)(config)) for key in keys]
