"""Training an SAE by the names of models and files: what `emlab sae train` calls.

The activations come from a stream: one model's, the difference of two models', or both for a crosscoder. They go
through a shuffling buffer, or into a cache on disk that later trainings use again. Stopped, the same call goes on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from emlab import artifacts
from emlab.data import Documents, Messages
from emlab.errors import EmlabError
from emlab.experiments.material.documents import check_organism, documents_for, for_template
from emlab.experiments.material.models import model_named
from emlab.experiments.material.sets import dataset_place
from emlab.models import LanguageModel
from emlab.saes import Fidelity, fidelity, load_sae, save_sae
from emlab.saes.buffer import BufferedStream
from emlab.saes.cache import write_cache
from emlab.saes.card import training_card
from emlab.saes.crosscoder import Crosscoder
from emlab.saes.recipe import SaeRecipe
from emlab.saes.sources import Source
from emlab.saes.stream import ActivationStream, Reader
from emlab.saes.token_rows import Counts, Exclusions
from emlab.saes.train import SaeTraining, fit_sae
from emlab.sites import Site

KEEP = ("first", "special", "sinks")
"""What can be kept that is left out otherwise."""

RECIPE: dict[str, Any] = {"d_sae": 512, "k": 16, "tokens": 500_000, "batch_size": 1024}
"""What differs from `SaeRecipe`'s defaults: enough for the organism."""

TEST_TOKENS = 20_000
"""Fidelity is measured on at most so many activations of the documents held out."""


@dataclass(frozen=True, eq=False)
class TrainedSae:
    """An SAE that was trained and saved."""

    folder: Path
    training: SaeTraining
    fidelity: Fidelity
    """On the documents that were held out."""

    def __str__(self) -> str:
        lines = [str(self.training)]
        if self.training.counts:
            lines.append(str(Counts(**self.training.counts)))
        lines.append(f"on other documents: {self.fidelity}")
        if self.training.about.kind == "crosscoder":
            lines.append(str(Crosscoder.of(self.training.sae)))
        return "\n".join([*lines, f"saved in {self.folder}"])

    def summary(self) -> dict[str, Any]:
        """The figures, for JSON."""
        training = self.training
        return {
            "folder": self.folder,
            "about": training.about.plain(),
            "recipe": asdict(training.recipe),
            "counts": training.counts,
            "samples_per_second": training.samples_per_second,
            "fidelity": asdict(self.fidelity),
        }


def sae(
    model: str,
    out: str | Path,
    site: str = "resid_post.0",
    documents: str | Path | Sequence[str | Path] | None = None,
    split: str = "train",
    read: str = "all",
    keep: Sequence[str] = (),
    max_length: int = 1024,
    minus: str | None = None,
    both: str | None = None,
    base_sae: str | Path | None = None,
    cache: str | Path | None = None,
    buffer: int = 262_144,
    held_out: int = 200,
    checkpoint_every: int = 1000,
    half: bool = False,
    **recipe: Any,
) -> TrainedSae:
    """Train an SAE on `model` at `site` and save it, with a card, in the new folder `out`.

    `documents` is what `Documents.read` takes, the name of a published set, or several of these, which are read in
    turn, one document of each; None: the organism's pretraining documents, for the organism's models. The first
    `held_out` of them are kept for measuring. `keep` names what is not to be left out: first, special, sinks. `minus`
    is the model before, whose activations are subtracted; `both` the model before of a crosscoder. `base_sae` is an SAE
    to start from (fine-tuning it). With a `cache`, a folder, the activations are written there first, or read from
    there where they have been; else they go through a buffer of `buffer` activations.

    Checkpoints lie beside `out`, and the same call goes on from them. With `half` the weights are rounded to float16 in
    the end, and measured and saved so, in half the space. All else is the `SaeRecipe`'s; by default 512
    latents of which 16 are active, 500,000 activations, in steps of at most 1,024.
    """
    out = artifacts.place(out)
    artifacts.check_new(out)
    if unknown := [name for name in keep if name not in KEEP]:
        raise EmlabError(f"{unknown[0]!r} is none of what can be kept ({', '.join(KEEP)}); leave it out.")
    if minus is not None and both is not None:
        raise EmlabError("An SAE is of the difference (minus) or of both models (both); give one of them.")
    recipe = RECIPE | recipe
    asked = SaeRecipe(**recipe | {"batch_size": min(recipe["batch_size"], recipe["tokens"])})
    start = None if base_sae is None else load_sae(base_sae)
    reader = model_named(model)
    before = minus or both
    if documents is None:
        texts = _organism_documents(reader, model, asked.seed)
    else:
        several = [documents] if isinstance(documents, str | Path) else documents
        texts = Documents.in_turn([Documents.read(dataset_place(str(one)), split) for one in several])

    def stream(part: Documents) -> ActivationStream:
        return ActivationStream(
            reader,
            part,
            Site.parse(site),
            read=read,  # type: ignore[arg-type]  # the stream refuses what it does not know
            exclude=Exclusions("first" not in keep, "special" not in keep, None if "sinks" in keep else 10.0),
            against=None if before is None else other,
            kind="difference" if minus else "crosscoder" if both else "plain",
            max_length=max_length,
        )

    other = None if before is None else model_named(before)
    learned = stream(texts.after(held_out))
    source: Source = BufferedStream(learned, buffer)
    if cache is not None:
        source = write_cache(learned, cache, asked.tokens)
    training = fit_sae(
        source,
        asked,
        start=start,
        folder=out.with_name(f"{out.name}.checkpoints"),
        checkpoint_every=checkpoint_every,
    )
    if half:
        for weight in training.sae.parameters():
            weight.data = weight.data.half().float()
    measured = fidelity(training.sae, torch.cat(list(Reader(stream(texts.first(held_out))).take(TEST_TOKENS))))
    save_sae(training.sae, out, training_card(training, measured, half), half)
    return TrainedSae(out, training, measured)


def _organism_documents(reader: LanguageModel, name: str, seed: int) -> Documents:
    """The organism's pretraining documents without end; EmlabError for a model of another vocabulary."""
    check_organism(name, reader)

    def endless() -> Iterator[Messages]:
        for block in itertools.count():
            # Apart from the seeds near `seed`, from which other documents are made.
            chats = documents_for(reader, 1000, seed * 1_000_003 + 7919 * (block + 1))
            yield from for_template(reader, [document.messages for document in chats])

    return Documents.of(endless, f"the organism's pretraining documents, seed {seed}")
