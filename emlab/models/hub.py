"""Models of the Hugging Face Hub, downloaded once."""

from __future__ import annotations

from pathlib import Path

from emlab.errors import EmlabError
from emlab.models.loading import first_line


def from_hub(name: str, folder: Path | None = None) -> Path:
    """The folder of the Hugging Face Hub's model `name`, in the Hub's cache or written to `folder`; EmlabError else.

    Only safetensors weights are downloaded.
    """
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, local_dir=folder))
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, OSError, ValueError) as error:
        raise EmlabError(
            f"There is no model folder {name}, and {name} cannot be had from the Hugging Face Hub "
            f"({first_line(error)[:200]}); check the name, the network, and the access you have."
        ) from error


def kept_folder(name: str) -> Path:
    """The folder that a model of `name` was loaded from: itself, or the Hub's copy on this machine; EmlabError else."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    if not name:
        raise EmlabError("It was not loaded from a folder.")
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise EmlabError(f"There is no folder {name}, nor a copy of such a model of the Hub.") from error
