"""What is written is read back as what it was; what is something else is refused in one sentence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from emlab import artifacts, records
from emlab.discovery import LatentShift
from emlab.errors import EmlabError
from emlab.runs import Run
from emlab.sites import Site


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    share: float
    n: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Found(records.Saved):
    site: Site
    parts: tuple[Part, ...]
    by_name: Mapping[str, Part]
    values: np.ndarray
    vector: torch.Tensor
    best: Part | None = None


@dataclasses.dataclass(frozen=True)
class OwnFormat:
    text: str

    def save(self, place):
        artifacts.write_text(place / "text.txt", self.text)

    @classmethod
    def load(cls, place):
        return cls((place / "text.txt").read_text())


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 0


def found():
    part = Part("a", 0.25, 4)
    return Found(Site("resid_post", 1), (part, part), {"one": part}, np.array([0.1, 2.0]), torch.tensor([0.1, 3.0]))


def test_a_result_comes_back_with_its_types_and_to_the_last_digit(tmp_path):
    saved = found()
    back = Found.load(saved.save(tmp_path / "found.json"))
    assert (back.site, back.parts, back.by_name, back.best) == (saved.site, saved.parts, saved.by_name, None)
    assert back.values.tolist() == saved.values.tolist() and torch.equal(back.vector, saved.vector)


def test_nan_is_null_in_the_file_and_nan_again_where_a_number_is_due(tmp_path):
    records.keep(Part("a", math.nan), Part, tmp_path / "part")
    assert '"share": null' in (tmp_path / "part.json").read_text()
    back = records.kept(Part, tmp_path / "part")
    assert math.isnan(back.share) and back.n is None


@pytest.mark.parametrize(
    "raw, said",
    [
        ({"name": "a"}, r"required field missing @ \$.share"),
        ({"name": "a", "share": "much"}, r"expected float @ \$.share"),
        ({"name": "a", "share": 1, "more": 2}, r"extra fields found \(more\)"),
        ([1, 2], "Part"),
    ],
)
def test_what_is_no_such_result_is_one_sentence(raw, said, tmp_path):
    path = artifacts.write_json(tmp_path / "part.json", raw)
    with pytest.raises(EmlabError, match=said) as refused:
        records.read(path, Part)
    assert str(refused.value).startswith(f"{path} holds no Part (") and "\n" not in str(refused.value)


def test_what_has_a_format_of_its_own_keeps_it(tmp_path):
    one, two = OwnFormat("one"), OwnFormat("two")
    kinds = (
        (one, OwnFormat),
        (None, OwnFormat | None),
        ((one, two), tuple[OwnFormat, ...]),
        ({"b": two, "a": one}, Mapping[str, OwnFormat]),
        ((one, None, two), tuple[OwnFormat | None, ...]),
        ((), tuple[OwnFormat, ...]),
        ((found().parts[0],), tuple[Part, ...]),
    )
    for number, (value, kind) in enumerate(kinds):
        place = tmp_path / str(number)
        records.keep(value, kind, place)
        assert records.kept(kind, place) == value
        if isinstance(value, dict):
            assert list(records.kept(kind, place)) == list(value), "in the order in which it was given"
    assert (tmp_path / "2" / "1" / "text.txt").read_text() == "two"


def test_a_stage_is_worked_once_and_read_back_as_its_kind(tmp_path):
    run, worked = Run.create("trial", Config(), tmp_path), []

    def work():
        worked.append(1)
        return (Part("a", 0.5),)

    assert run.stage("parts", work, tuple[Part, ...]) == run.stage("parts", work, tuple[Part, ...]) == work()
    assert len(worked) == 2  # once by the two stages, and once by this test
    assert Path(run.folder, "parts", "result.json").is_file()


def test_a_tuple_of_results_that_are_several_files_each_comes_back_whole(tmp_path, made):
    shifts = tuple(made.shift(name, 0.1, 0.2) for name in ("insecure", "secure"))
    records.keep(shifts, tuple[LatentShift, ...], tmp_path / "result")
    assert len(list((tmp_path / "result").iterdir())) > len(shifts)
    assert [one.model_after for one in records.kept(tuple[LatentShift, ...], tmp_path / "result")] == [
        "insecure",
        "secure",
    ]
