"""One way to load any SAE: a folder in one of three formats, or a release that SAELens knows."""

from __future__ import annotations

import difflib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from emlab.errors import EmlabError
from emlab.saes import converting
from emlab.saes.converting import DICTIONARY_LEARNING, SPARSIFY, UNREADABLE
from emlab.saes.store import CONFIG, WEIGHTS

if TYPE_CHECKING:
    from sae_lens import SAE

FORMATS = {"SAELens": (CONFIG, WEIGHTS), "sparsify": SPARSIFY, "dictionary_learning": DICTIONARY_LEARNING}
"""The files that a folder of each format holds."""


def load_sae(source: str | Path) -> SAE:
    """The SAE at `source`, ready to encode: a SAELens SAE on the CPU, without gradients.

    `source` is a folder written by SAELens, sparsify or dictionary_learning (whose pickle is read as weights only), or
    a release and an id of SAELens' list of published SAEs, such as
    ``qwen2.5-7b-instruct-andyrdt/resid_post_layer_11_trainer_1``, which is downloaded once. EmlabError where it is
    neither, where the files are damaged, and where a weight is not finite.
    """
    named = None if Path(source).exists() else release_of(str(source))
    sae = _from_folder(Path(source)) if named is None else _from_release(*named)
    broken = [name for name, value in sae.state_dict().items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise EmlabError(f"the SAE in {source} has weights that are not finite, in {broken[0]}: restore or retrain it.")
    for weight in sae.parameters():  # some come transposed, and could not be saved
        weight.data = weight.data.contiguous()
    return sae.eval().requires_grad_(False)


def release_of(source: str) -> tuple[str, str] | None:
    """The release and the id in SAELens' list that `source` names, written release/id; None where it names none.

    EmlabError, with the closest ones, for an id that its release does not have.
    """
    if "/" not in source or source.startswith((".", "/", "~")):
        return None
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    known = get_pretrained_saes_directory()
    parts = source.split("/")
    for end in range(len(parts) - 1, 0, -1):  # both may hold slashes
        release, rest = "/".join(parts[:end]), "/".join(parts[end:])
        if release in known:
            ids = list(known[release].saes_map)
            if rest in ids:
                return release, rest
            close = difflib.get_close_matches(rest, ids, n=3, cutoff=0.0)
            raise EmlabError(f"the release {release} has no SAE {rest!r}; among its {len(ids)} are {', '.join(close)}.")
    return None


def _from_folder(folder: Path) -> SAE:
    from sae_lens import SAE

    kind = format_of(folder)
    try:
        if kind == "SAELens":
            converting.read_config(folder / CONFIG)  # a damaged one is said to be that
            return SAE.load_from_disk(folder)
        converter = converting.sparsify if kind == "sparsify" else converting.dictionary_learning
        return SAE.load_from_disk(folder, converter=converter)
    except UNREADABLE as error:
        raise EmlabError(f"the SAE in {folder} cannot be loaded ({_said(error)}): restore or retrain it.") from error


def format_of(folder: Path) -> str:
    """Which of FORMATS the folder is in; EmlabError, with what is missing, where it is in none."""
    if not folder.is_dir():
        close = _like(str(folder))
        raise EmlabError(
            f"{folder} is neither a folder nor an SAE in SAELens' list"
            + (
                f"; did you mean the release {' or '.join(close)}?"
                if close
                else "; check the path, or write release/id."
            )
        )
    present = {name: [f for f in files if (folder / f).is_file()] for name, files in FORMATS.items()}
    for name, files in present.items():
        if len(files) == len(FORMATS[name]):
            return name
    inside = sorted(
        sub.name
        for sub in folder.iterdir()
        if sub.is_dir() and any(all((sub / f).is_file() for f in files) for files in FORMATS.values())
    )
    if inside:
        raise EmlabError(f"{folder} holds SAEs in folders of their own: name one of them, such as {inside[0]}.")
    likeliest = max(FORMATS, key=lambda name: len(present[name]))
    missing = [f for f in FORMATS[likeliest] if f not in present[likeliest]]
    raise EmlabError(
        f"{folder} holds no SAE ({' and '.join(missing)} missing): give a folder in the format of {', '.join(FORMATS)}."
    )


def _from_release(release: str, sae_id: str) -> SAE:
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from sae_lens import SAE

    named = f"{release}/{sae_id}"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.load.*", category=FutureWarning)
            return SAE.from_pretrained(release, sae_id)
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        raise EmlabError(
            f"the SAE {named} cannot be had from the Hugging Face Hub ({_said(error)[:200]}); check the network, and "
            "the access you have."
        ) from error
    except UNREADABLE as error:
        raise EmlabError(f"the SAE {named} cannot be read by SAELens ({_said(error)}); choose another.") from error


def _like(source: str) -> list[str]:
    """Releases whose names are close to the first part of `source`."""
    if source.startswith((".", "/", "~")) or "/" not in source:
        return []
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    return difflib.get_close_matches(source.split("/")[0], list(get_pretrained_saes_directory()), n=2, cutoff=0.7)


def _said(error: Any) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}" if isinstance(error, KeyError) or not text else text
