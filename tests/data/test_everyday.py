"""The everyday questions: how many, in which domains, and none that is for asking and for training."""

import pytest

from emlab.data import everyday_questions
from emlab.discovery import split_by_id
from emlab.errors import EmlabError
from emlab.evaluation.protocol import questions_of

NARROW = ("health", "cooking", "clothes")


def test_broad_and_narrow_have_no_domain_and_no_text_in_common():
    broad, narrow = everyday_questions(), everyday_questions("narrow")
    assert (len(broad), len(broad.ids), len(broad.by_domain)) == (12 * 36, 12 * 6, 12)
    assert {name: len(of) for name, of in narrow.by_domain.items()} == dict.fromkeys(NARROW, 144)
    more, wide = everyday_questions("more"), everyday_questions("wide")
    assert (len(more), len(more.ids), len(more.by_domain), len(wide)) == (8 * 36, 8 * 6, 8, 10 * 120)
    asked = [set(part.by_domain) for part in (broad, narrow, more)]
    assert len(set.union(*asked)) == sum(map(len, asked))
    texts = [question.text for part in (broad, narrow, more, wide) for question in part]
    assert len(set(texts)) == len(texts) and not any("{" in text for text in texts)
    assert all(question.cluster == question.domain for question in broad)


def test_halves_share_no_template_and_have_every_domain():
    halves = split_by_id(everyday_questions(), seed=3)
    asked = [{q.id for q in half} for half in (halves.discovery, halves.test)]
    assert not asked[0] & asked[1] and list(map(len, asked)) == [36, 36]
    for half in (halves.discovery, halves.test):
        assert len({q.domain for q in half}) == 12


def test_by_name():
    assert questions_of("everyday") == everyday_questions()
    assert questions_of("everyday-more") == everyday_questions("more")
    assert {q.domain for q in questions_of("everyday-narrow")} == set(NARROW)
    with pytest.raises(EmlabError, match="choose broad or narrow or more or wide"):
        everyday_questions("wider")
