"""What tells that the models and files a config names are still the same: a run on others is another run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.experiments.material.config import BehaviourConfig
from emlab.experiments.material.models import folder_of
from emlab.experiments.material.sets import dataset_place
from emlab.runs import fingerprint
from emlab.shipped import located


def inputs_of(
    config: BehaviourConfig, models: Iterable[str], data: Iterable[str], mend: str, **files: str | Path | None
) -> dict[str, str]:
    """What identifies all that a config names: EmlabError where a file that is trained on is missing.

    Args:
        config: Names the model, the questions and the judge.
        models: Further models, by name.
        data: Datasets, by path or by name.
        mend: Ends the sentence on a missing one.
        files: Further files by what they are for; what is no file is left out, as it is named in the config.
    """
    found = {f"model {name}": fingerprint(folder_of(name)[0]) for name in dict.fromkeys([config.model, *models])}
    for name in data:
        path = artifacts.place(name)
        if path.suffix and not path.exists():
            raise EmlabError(f"There is no file {name}, which an arm is trained on; {mend}")
        found[name] = content_of(dataset_place(name))
    return found | files_of(questions=dataset_place(config.question_set), judgements=config.judging.judge, **files)


def content_of(place: str | Path) -> str:
    """Of a file its checksum, of a folder what tells its files apart; of what is not here, as on the Hub, its name."""
    path = located(place)
    if path.is_dir():
        return fingerprint(path)
    return artifacts.sha256(path) if path.is_file() else str(place)


def files_of(**places: str | Path | None) -> dict[str, str]:
    """What tells the content of each of the places that is a file or a folder, by what it is for."""
    named = {label: located(place) for label, place in places.items() if place is not None}
    return {label: content_of(place) for label, place in named.items() if artifacts.is_there(place)}
