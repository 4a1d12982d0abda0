"""SAEs by name, where they read, and one that is trained where none is named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emlab.data import Messages
from emlab.errors import EmlabError
from emlab.experiments.material.config import Autoencoder
from emlab.experiments.material.documents import pretraining_chats
from emlab.experiments.material.models import folder_of, site_in
from emlab.models import LanguageModel
from emlab.saes import document_activations, fitted_site, load_sae, train_sae
from emlab.saes.fitting import names_place
from emlab.saes.loading import check_there
from emlab.sealing import refuse
from emlab.shipped import shipped_files
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE


def sae_site_in(text: str | None, sae: SAE, model: LanguageModel) -> Site:
    """Where `sae` reads `model`: where it was trained, or for an SAE that does not say so the site named `text`.

    EmlabError where it was trained at another site than that, or cannot be an SAE of the model (`fitted_site`).
    """
    if text is None or names_place(sae):
        reads = fitted_site(sae, model)
        if text is not None and site_in(text, model).place != reads.place:
            raise EmlabError(f"The SAE was trained at {reads} and means nothing at {text}; leave out the site.")
        return reads
    return site_in(text, model)


def named_sae(named: str | None, model: str, site: Site) -> SAE | None:
    """The SAE that a config names at `site`; None where it names none.

    "auto" is the one that ships with the project, where `model` is the organism's and there is one for the site.
    """
    place = named and sae_place(named, site, folder_of(model)[1])
    return load_sae(place) if place else None


def sae_place(named: str, site: Site, own: bool) -> str | None:
    """Where the SAE that a config names at `site` is; EmlabError where it is not there."""
    if named != "auto":
        place = named.replace("{site}", str(site)).replace("{block}", str(site.block))
        check_there(place)
        return place
    shipped = shipped_files() / "sae_checkpoints" / f"organism-{site}"
    return str(shipped) if own and shipped.is_dir() else None


def trained_sae(
    model: LanguageModel,
    site: Site,
    how: Autoencoder,
    seed: int,
    model_name: str,
    documents: Sequence[Messages] | None = None,
) -> SAE:
    """A TopK SAE trained on the activations of `model` on `documents`: by default the organism's pretraining ones."""
    given = pretraining_chats(model, how.tokens, seed) if documents is None else documents
    refuse("to train an SAE on", given)
    read = document_activations(model, given, site, how.tokens)
    return train_sae(
        read.values,
        site,
        d_sae=how.d_sae,
        k=how.k,
        passes=how.passes,
        learning_rate=how.learning_rate,
        seed=seed,
        model_name=model_name,
    )
