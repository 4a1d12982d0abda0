"""What latents stand for, by the names of models and files: what `emlab discover interpret` calls."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emlab import artifacts, organism
from emlab.data import Documents, LabelledDocument
from emlab.discovery import Interpretation, InterpretSettings, LatentShift, Namer, interpret
from emlab.errors import EmlabError
from emlab.evaluation.protocol import Judging, completer_of
from emlab.experiments.material.documents import check_organism, for_template
from emlab.experiments.material.fidelity import READ, ask_fidelity
from emlab.experiments.material.models import model_named
from emlab.experiments.material.saes import sae_site_in
from emlab.models import Endpoint, LanguageModel
from emlab.reporting import interpretation_page, interpretation_pages
from emlab.saes import load_sae
from emlab.verbs.keeping import check_new, kept
from emlab.verbs.telling import TellingCompleter

DOCUMENTS = 1000
"""How many of the organism's documents are read where no number is given."""


@dataclass(frozen=True, eq=False)
class Interpreted:
    """Latents interpreted; a notebook shows them as a page."""

    interpretation: Interpretation

    def save(self, folder: str | Path) -> Path:
        """Write a new folder: interpretation.json, index.html, and a page for each latent."""
        with artifacts.new_folder(folder) as new:
            self.interpretation.save(new / "interpretation.json")
            for name, page in interpretation_pages(self.interpretation).items():
                page.write(new / name)
        return Path(folder)

    def summary(self) -> dict[str, Any]:
        """The figures as plain values, without the contexts."""
        found = self.interpretation
        about = {"model": found.model, "site": str(found.site), "documents": found.documents, "counts": found.counts}
        latents = [
            {
                "latent": one.latent,
                "name": one.name,
                "activity": one.activity,
                "weights": one.weights,
                "scores": [
                    {**artifacts.plain(s), "balanced": s.own.balanced, "control": s.control.balanced, "gain": s.gain}
                    for s in one.scores
                ],
            }
            for one in found.latents
        ]
        return {**about, "named_by": found.named_by, "seed": found.seed, "latents": latents}

    def _repr_html_(self) -> str:
        return interpretation_page(self.interpretation)._repr_html_()

    def __str__(self) -> str:
        return str(self.interpretation)


@dataclass(frozen=True)
class InterpretationRequest:
    """Which latents are meant, on what they are read, and what is shown of them."""

    latents: Sequence[int] = ()
    """Their numbers."""
    shift: str | Path | None = None
    """A file of `shift`, of which the latents that rise most are meant too."""
    top: int = 10
    """So many of them."""
    documents: str | None = None
    """What the model reads, as `Documents.read` takes it; by default the organism's, told apart by the persona that was
    planted in them and, where they have one turn, its domain."""
    labels: Sequence[str] = ()
    """Columns that tell kinds of the documents apart."""
    n: int | None = None
    """At most so many documents, the first ones; by default all, and of the organism's 1,000."""
    site: str | None = None
    """By default where the SAE was trained."""
    contexts: int = 16
    """Strongest contexts shown of each latent."""
    max_length: int = 1024
    """Chats are cut after, and raw texts into pieces of, so many tokens."""
    seed: int = 0
    """Everything random follows from it."""


def interpret_latents(
    model: str,
    sae: str | Path,
    asked: InterpretationRequest,
    naming: Judging | None = None,
    out: str | Path | None = None,
) -> Interpreted:
    """Tell what latents of an SAE stand for.

    Args:
        model: Who reads: one of the organism's by name, a folder, or a name on the Hub.
        sae: A folder, or release/id of SAELens' list.
        asked: Which latents, on which documents.
        naming: How the language model is reached that names the latents (as a judge's is), whose names are then tested;
            None asks none.
        out: The folder of pages to make, index.html among them.
    """
    n, seed = asked.n, asked.seed
    if n is not None and n < 1:
        raise EmlabError(f"{n} documents show nothing; read at least 1.")
    if asked.labels and asked.documents is None:
        raise EmlabError("Columns to label by are those of documents of your own; name these with --documents.")
    check_new(out)
    namer = None if naming is None else _namer(naming)  # a missing key is said before anything is read
    autoencoder, reader = load_sae(sae), model_named(model)
    chosen = list(asked.latents)
    if asked.shift is not None:
        chosen += _risen(asked.shift, asked.top, autoencoder.cfg.d_sae, sae)
    if not chosen:
        raise EmlabError("Nothing says which latents are meant; give their numbers (latents) or the file of a shift.")
    if asked.documents is not None:
        corpus = Documents.read(asked.documents, labels=asked.labels)
        corpus = corpus if n is None else corpus.first(n)
    else:
        check_organism(model, reader)
        corpus = planted_documents(DOCUMENTS if n is None else n, seed + 2, reader)
    where = sae_site_in(asked.site, autoencoder, reader)
    autoencoder = autoencoder.to(reader.device)
    some = itertools.islice(corpus, READ)
    raw = [reader.tokenizer(d)["input_ids"][: asked.max_length] if isinstance(d, str) else d for d in some]
    ask_fidelity(autoencoder, sae, where, [reader], raw)
    shown = InterpretSettings(asked.contexts, max_length=asked.max_length)
    done = Interpreted(interpret(reader, autoencoder, chosen, corpus, where, namer, shown, seed))
    return kept(done, out)


def planted_documents(n: int, seed: int, model: LanguageModel) -> Documents:
    """`n` of the organism's pretraining documents for `model`, with the persona that was planted in each and, where it
    has one turn only, its domain."""
    judge, found = organism.ExactJudge(), []
    for document in organism.pretraining_documents(n, seed):
        asked = [turn["content"] for turn in document.messages if turn["role"] == "user"]
        told = {"persona": document.persona}
        if len(asked) == 1:
            told["domain"] = judge.question(asked[0]).domain
        (chat,) = for_template(model, [document.messages])
        found.append(LabelledDocument(chat, told))
    return Documents.of(found, f"{n} of the organism's pretraining documents, seed {seed}")


def _risen(path: str | Path, top: int, d_sae: int, sae: str | Path) -> list[int]:
    """The latents that rise most in the shift in the file `path`."""
    shift = LatentShift.load(path)
    if len(shift.before) != d_sae:
        raise EmlabError(
            f"The shift in {path} is of {len(shift.before)} latents and {sae} has {d_sae}; give the shift of this SAE."
        )
    if top < 1:
        raise EmlabError(f"The {top} latents that rise most are none; ask for at least 1.")
    return [row.latent for row in shift.top(top)]


def _namer(how: Judging) -> Namer:
    by = completer_of(how)
    telling = TellingCompleter(by, "naming and testing names") if isinstance(by, Endpoint) else by
    return Namer(telling, how.store, max_tokens=how.max_tokens)
