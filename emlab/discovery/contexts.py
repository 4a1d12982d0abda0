"""Where a latent fires most: the texts a reader needs in order to say what it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.saes import latent_values
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.data import Messages
    from emlab.models import LanguageModel


@dataclass(frozen=True)
class Context:
    """A stretch of text around a strong activation."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    """Of the latent on each token."""
    label: str = ""
    """What is known of the text, such as its planted persona."""

    @property
    def peak(self) -> float:
        """The strongest activation in it."""
        return max(self.activations)


@torch.no_grad()
def top_contexts(
    model: LanguageModel,
    sae: SAE,
    latent: int,
    site: Site,
    documents: Sequence[Messages],
    labels: Sequence[str] = (),
    n: int = 8,
    window: int = 14,
) -> tuple[Context, ...]:
    """The `n` documents in which `latent` is most active, each cut to `window` tokens on either side of its peak."""
    if not documents:
        raise EmlabError("There are no documents to look for contexts in; give at least one.")
    read = model.activations(documents, site, "all")
    values = latent_values(sae, read.values, [latent])[:, 0]
    values[read.positions == 0] = 0.0  # a document's first token is an attention sink in many models
    peaks = torch.zeros(len(documents)).scatter_reduce_(0, read.rows, values, "amax")
    found = []
    for row in torch.argsort(peaks, descending=True, stable=True)[:n].tolist():
        here = (read.rows == row).nonzero()[:, 0]
        at = int(values[here].argmax())
        cut = here[max(0, at - window) : at + window + 1]
        texts = tuple(model.tokenizer.convert_ids_to_tokens(i) for i in read.tokens[cut].tolist())
        shown = tuple(model.tokenizer.convert_tokens_to_string([t]) for t in texts)
        found.append(Context(shown, tuple(values[cut].tolist()), labels[row] if labels else ""))
    return tuple(found)


def save_contexts(contexts: Sequence[Context], path: str | Path) -> Path:
    """Write contexts as JSON."""
    return artifacts.write_json(path, list(contexts))


def load_contexts(path: str | Path) -> tuple[Context, ...]:
    """Read what `save_contexts` wrote."""
    try:
        return tuple(
            Context(tuple(c["tokens"]), tuple(c["activations"]), c["label"]) for c in artifacts.read_json(path)
        )
    except (KeyError, TypeError) as error:
        raise EmlabError(f"{path} holds no contexts ({error}); write it with save_contexts.") from error
