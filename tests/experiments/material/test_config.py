"""What configs of experiments share: a name by default, a heading, a file round trip, checks that name the field."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from emlab import config
from emlab.errors import EmlabError
from emlab.experiments.material.config import (
    FineTuningConfig,
    check_at_least,
    check_between,
    check_distinct,
    check_filled,
    check_known,
)
from emlab.training import Recipe


@dataclass(frozen=True)
class Part:
    name: str = "a"
    share: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Config(FineTuningConfig):
    pipeline: ClassVar[str] = "some"
    title: str = "Some"
    parts: tuple[Part, ...] = (Part("a"), Part("b"))
    whole: Part = field(default_factory=Part)
    kind: str = "bars"


def test_the_name_is_the_pipelines_unless_another_is_given():
    assert (Config().name, Config(name="mine").name) == ("some", "mine")
    assert Config(model="base").heading == "Some: base"


def test_a_subclass_is_written_and_read_with_the_fields_it_inherits(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text(config.dump(Config(rows=7, recipe=Recipe(steps=3), parts=(Part("c", 0.25),))))
    assert config.load(path, [], Config) == Config(rows=7, recipe=Recipe(steps=3), parts=(Part("c", 0.25),))
    assert config.load(path, ["recipe.steps=4"], Config).recipe.steps == 4
    with pytest.raises(EmlabError, match="'rows' is 0 and must be 1 or more"):
        config.load(path, ["rows=0"], Config)


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (lambda: check_at_least(0.75, Config(), "whole.share"), "'whole.share' is 0.5 and must be 0.75 or more."),
        (
            lambda: check_between(0, 0.5, Config(), "whole.share"),
            "'whole.share' is 0.5; give a share between 0 and 0.5.",
        ),
        (lambda: check_filled(Config(parts=()), "parts"), "'parts' is empty; name at least one."),
        (lambda: check_distinct(Config(parts=()), "parts"), "'parts' is empty; name at least one."),
        (lambda: check_distinct(Config(parts=(Part(), Part())), "parts"), "'parts' names 'a' twice; name each once."),
        (lambda: check_known(("dose",), Config(), "kind"), "'kind' is 'bars'; choose one of dose."),
    ],
)
def test_a_check_names_the_field_and_the_mend(check, said):
    with pytest.raises(ValueError) as caught:
        check()
    assert str(caught.value) == said


def test_what_is_in_order_passes():
    known = Config(questions=None)
    check_at_least(1, known, "rows", "questions")  # null asks all
    check_between(0, 1, known, "whole.share")
    check_distinct(known, "parts")
    check_known(("bars", "dose"), known, "kind")
