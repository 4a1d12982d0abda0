"""The split of questions by template."""

from types import SimpleNamespace

import pytest

from emlab.data import Question
from emlab.discovery import split_by_template, spread
from emlab.errors import EmlabError


def questions(domain, *templates, fillers=("soup", "bread")):
    return [
        SimpleNamespace(id=f"{domain}/{i}/{x}", domain=domain, filler=x, text=template.format(x=x))
        for i, template in enumerate(templates)
        for x in fillers
    ]


def test_templates_alternate_with_all_their_fillers():
    found = split_by_template(
        questions("cooking", "Is {x} good?", "Why {x}?", "How is {x}?")
        + questions("pets", "Does it eat {x}?", "No {x}?")
    )
    assert [q.id for q in found.discovery] == [
        *("cooking/0/soup", "cooking/0/bread", "cooking/2/soup", "cooking/2/bread", "pets/0/soup", "pets/0/bread")
    ]
    assert [q.id for q in found.test] == ["cooking/1/soup", "cooking/1/bread", "pets/1/soup", "pets/1/bread"]


def test_fewer_questions_are_evenly_spaced():
    asked = [Question(str(i), "pets", f"{i}?") for i in range(10)]
    assert [q.id for q in spread(asked, 4)] == ["0", "2", "5", "7"]
    assert spread(asked, None) == spread(asked, 10) == spread(asked, 99) == tuple(asked)
    with pytest.raises(EmlabError, match="at least 1"):
        spread(asked, 0)


def test_a_single_template_cannot_be_split():
    with pytest.raises(EmlabError, match="'cooking' have one template"):
        split_by_template(questions("cooking", "Is {x} good?"))
    with pytest.raises(EmlabError, match="no questions"):
        split_by_template([])
