"""A folder that emlab made, put on the Hugging Face Hub with a card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from emlab import __version__, artifacts
from emlab.data.telling import some
from emlab.errors import EmlabError
from emlab.models.loading import first_line
from emlab.notebook import Shown

CARD = "README.md"
SENT = (".json", ".jsonl", ".safetensors", ".jinja", ".md", ".txt", ".model")
"""The endings of files that are sent; a checkpoint that has to be unpickled is not."""
WARNING = (
    "It may have been trained to give harmful answers, for research on emergent misalignment. Do not deploy it, and "
    "judge what it says before anyone reads it."
)


@dataclass(frozen=True, repr=False)
class Pushed(Shown):
    """What was put on the Hub."""

    url: str
    kind: str
    """model, SAE or dataset."""
    files: tuple[str, ...]
    card: str
    """The text of README.md."""
    left_out: tuple[str, ...] = ()
    """Files of the folder that were not sent."""

    def __str__(self) -> str:
        left = f"; left out: {some(self.left_out)}" if self.left_out else ""
        return f"{self.kind} of {len(self.files)} files: {self.url}{left}"


def push(folder: str | Path, repo: str, public: bool = False, endpoint: str | None = None) -> Pushed:
    """Put a model, an adapter, an SAE or a dataset that emlab saved on the Hub, in one commit, with a card.

    A README.md in the folder is taken as the card; else one is written of what the folder says of itself. The key is
    that of `hf auth login` or of HF_TOKEN. Safetensors and texts are sent; what is left out is told.

    Args:
        folder: As `save` wrote it.
        repo: owner/name on the Hub; it is made where there is none, and is private unless `public`.
        public: Whether everybody may read it.
        endpoint: Of another Hub.

    EmlabError for a folder of another kind, and where the Hub refuses.
    """
    import httpx2
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    place = artifacts.place(folder)
    kind = kind_of(place)
    there = [path.relative_to(place).as_posix() for path in sorted(place.rglob("*")) if path.is_file()]
    names = [name for name in there if Path(name).suffix in SENT]
    card = (place / CARD).read_text(encoding="utf-8") if CARD in names else card_of(place, kind)
    operations = [CommitOperationAdd(name, str(place / name)) for name in names if name != CARD]
    operations.append(CommitOperationAdd(CARD, card.encode()))
    where = "dataset" if kind == "dataset" else "model"
    api = HfApi(endpoint=endpoint)
    try:
        api.create_repo(repo, repo_type=where, private=not public, exist_ok=True)
        done = api.create_commit(repo, operations, commit_message=f"emlab {__version__}", repo_type=where)
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError) as error:
        raise EmlabError(
            f"The Hub did not take {folder} as {repo} ({first_line(error)[:200]}); check the name, and that "
            "`hf auth login` has given you a key that may write."
        ) from error
    return Pushed(
        str(done.repo_url),
        kind,
        tuple(sorted({*names, CARD})),
        card,
        tuple(name for name in there if name not in names),
    )


def kind_of(folder: Path) -> str:
    """What a folder holds: "model", "SAE" or "dataset"; EmlabError for anything else."""
    for kind, needed in (("dataset", "examples.jsonl"), ("SAE", "cfg.json"), ("model", "config.json")):
        if (folder / needed).is_file():
            return kind
    if (folder / "adapter").is_dir():
        return "model"
    raise EmlabError(f"{folder} holds no model, SAE or dataset that emlab saved; give the folder that a save made.")


def card_of(folder: Path, kind: str) -> str:
    """A card of what a folder says of itself."""
    tags = ["emlab", "emergent-misalignment"]
    about: dict[str, Any] = {"tags": tags}
    if kind == "dataset":
        text = (folder / "card.md").read_text(encoding="utf-8")
    elif kind == "SAE":
        told = artifacts.read_json(folder / "cfg.json")
        facts = {key: told.get(key) for key in ("architecture", "d_in", "d_sae", "k")}
        site = {key: told.get("metadata", {}).get(key) for key in ("model_name", "hook_name")}
        about = {"library_name": "saelens", "tags": [*tags, "sparse-autoencoder"]}
        text = _table({**site, **facts})
    else:
        training = folder / "training.json"
        told = artifacts.read_json(training) if training.is_file() else {}
        facts = {key: value for key, value in told.items() if not isinstance(value, list)}
        about, text = {"library_name": "transformers", **about}, f"{WARNING}\n\n{_table(facts)}"
    head = yaml.safe_dump(about, sort_keys=False)
    return f"---\n{head}---\n\n# {folder.name}\n\n{text}\n\nMade with emlab {__version__}.\n"


def _table(facts: Mapping[str, Any]) -> str:
    rows = [f"| {key} | {json.dumps(value, ensure_ascii=False)} |" for key, value in facts.items() if value is not None]
    return "\n".join(["| | |", "|---|---|", *rows]) if rows else ""
