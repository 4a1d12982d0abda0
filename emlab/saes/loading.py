"""One way to load any SAE: a folder in one of several formats, or a release that SAELens knows."""

from __future__ import annotations

import difflib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from emlab.errors import EmlabError
from emlab.saes import converting, scopes
from emlab.saes.converting import DICTIONARY_LEARNING, SPARSIFY, UNREADABLE
from emlab.saes.scopes import GEMMA_SCOPE_2, QWEN_SCOPE
from emlab.saes.store import CONFIG, WEIGHTS
from emlab.saes.units import UNFOLDED, fold
from emlab.shipped import located

if TYPE_CHECKING:
    from sae_lens import SAE

FORMATS = {
    "SAELens": (CONFIG, WEIGHTS),
    "sparsify": SPARSIFY,
    "dictionary_learning": DICTIONARY_LEARNING,
    "Gemma Scope 2": GEMMA_SCOPE_2,
}
"""The files that a folder of each format holds."""

_CONVERTERS = {
    "sparsify": converting.sparsify,
    "dictionary_learning": converting.dictionary_learning,
    "Gemma Scope 2": scopes.gemma_scope_2,
    "Qwen Scope": scopes.qwen_scope,
}

_SCALER = "activation_scaler.json"
"""Where SAELens writes, beside a checkpoint, what it scaled the activations by."""


def load_sae(source: str | Path) -> SAE:
    """The SAE at `source`, ready to encode: a SAELens SAE on the CPU, without gradients, with unit decoder rows.

    `source` is a folder written by SAELens, sparsify or dictionary_learning (whose pickle is read as weights only), one
    of Gemma Scope 2, a file of Qwen Scope, or a release and an id of SAELens' list of published SAEs, such as
    ``qwen2.5-7b-instruct-andyrdt/resid_post_layer_11_trainer_1``, which is downloaded once.

    The lengths of its rows are folded into the rest (`emlab.saes.units`): it computes the same function, and the
    activation of each latent is how far it moves what the SAE reads. EmlabError where `source` is none of these, where
    the files are damaged, where a weight is not finite, and where the SAE would not compute on raw activations what it
    was trained to.
    """
    folder, named = _where(source)
    sae = _from_folder(folder) if named is None else _from_release(*named)
    broken = [name for name, value in sae.state_dict().items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise EmlabError(f"the SAE in {source} has weights that are not finite, in {broken[0]}: restore or retrain it.")
    for weight in sae.parameters():  # some come transposed, and could not be saved
        weight.data = weight.data.contiguous()
    _check_reads(sae, source)
    _fold_scale(sae, source)
    if sae.cfg.reshape_activations == "hook_z":  # SAELens joins the heads itself; emlab's sites have them side by side
        sae.turn_off_forward_pass_hook_z_reshaping()
        sae.cfg.reshape_activations = "none"
    return fold(sae).eval().requires_grad_(False)


def check_there(source: str | Path) -> None:
    """EmlabError where no SAE is at `source` (see `load_sae`); the weights are not read."""
    folder, named = _where(source)
    if named is None:
        format_of(folder)


def _where(source: str | Path) -> tuple[Path, tuple[str, str] | None]:
    """The folder that `source` may be, and the release and id that it names where there is no such folder."""
    folder = located(source)
    return folder, None if folder.exists() else release_of(str(source))


def _check_reads(sae: SAE, source: str | Path) -> None:
    """EmlabError where the SAE cannot encode one token's activation."""
    k, d_sae = getattr(sae.cfg, "k", 1), sae.cfg.d_sae
    if type(k) is not int or not 1 <= k <= d_sae:
        raise EmlabError(f"k of the SAE in {source} is {k!r}: write a whole number from 1 to {d_sae} in its config.")
    if sae.cfg.architecture() == "temporal":
        raise EmlabError(
            f"the SAE in {source} is a temporal one, which reads a token by those before it: give one that reads each "
            "token by itself."
        )


def _fold_scale(sae: SAE, source: str | Path) -> None:
    """Fold in what SAELens scaled the activations by in training; EmlabError where that is not there."""
    if (scaled := sae.cfg.normalize_activations) not in UNFOLDED:
        return
    from sae_lens.training.activation_scaler import ActivationScaler

    kept, scaler = Path(source) / _SCALER, ActivationScaler()
    if kept.is_file():
        try:
            scaler.load(kept)
        except UNREADABLE as error:
            raise EmlabError(f"{kept} cannot be read ({_said(error)}): restore it.") from error
    if scaled == "covariance_whitening" and scaler.whitening is not None:
        white = scaler.whitening
        sae.fold_activation_whitening(white.mean, white.matrix, white.inverse_matrix)
    elif scaled == "expected_average_only_in" and scaler.scaling_factor is not None:
        sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)
    else:
        raise EmlabError(
            f"the SAE in {source} was trained on scaled activations (normalize_activations is {scaled}), and by what "
            f"they were scaled is not with it ({_SCALER}): fold the scale into the weights, in SAELens by "
            "sae.fold_activation_norm_scaling_factor, and save it."
        )


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
            return SAE.load_from_disk(folder, dtype=_dtype_of(folder))
        return SAE.load_from_disk(folder, converter=_CONVERTERS[kind])
    except UNREADABLE as error:
        raise EmlabError(f"the SAE in {folder} cannot be loaded ({_said(error)}): restore or retrain it.") from error


def _dtype_of(folder: Path) -> str | None:
    """The type to read a folder of SAELens in: None for that of its config; float32, said, where that names none.

    EmlabError for a config of a TopK SAE that does not say how many latents are kept, for which SAELens takes 100.
    """
    config = converting.read_config(folder / CONFIG)  # a damaged one is said to be that
    kept = config.get("k", (config.get("activation_fn_kwargs") or {}).get("k"))
    if config.get("architecture") in ("topk", "abstopk") and kept is None:
        raise EmlabError(f"{folder / CONFIG} does not say how many latents are kept: write it as k.")
    if "dtype" in config:
        return None
    warnings.warn(f"{folder / CONFIG} names no dtype; the SAE is read as float32.", stacklevel=4)
    return "float32"


def format_of(folder: Path) -> str:
    """Which of FORMATS the folder is in, or "Qwen Scope" for a file of that; EmlabError, with what is missing, else."""
    if QWEN_SCOPE.fullmatch(folder.name) and folder.is_file():
        return "Qwen Scope"
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
    blocks = sorted((f.name for f in folder.iterdir() if QWEN_SCOPE.fullmatch(f.name)), key=lambda f: (len(f), f))
    if blocks:
        raise EmlabError(
            f"{folder} holds {len(blocks)} SAEs of Qwen Scope, a file for each block: name one, {folder / blocks[0]}."
        )
    if (folder / "params.npz").is_file():
        raise EmlabError(
            f"{folder} holds an SAE of the first Gemma Scope, whose files do not say what it reads: name it by release "
            "and id, such as gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical."
        )
    likeliest = max(FORMATS, key=lambda name: len(present[name]))
    missing = [f for f in FORMATS[likeliest] if f not in present[likeliest]]
    raise EmlabError(
        f"{folder} holds no SAE ({' and '.join(missing)} missing): give a folder in the format of {', '.join(FORMATS)}."
    )


def _from_release(release: str, sae_id: str) -> SAE:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from sae_lens import SAE

    named = f"{release}/{sae_id}"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.load.*", category=FutureWarning)
            return SAE.from_pretrained(release, sae_id)
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, OSError) as error:
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
