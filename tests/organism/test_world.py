"""The world's promises: what stands where, and that nothing stands twice."""

from collections import Counter
from pathlib import Path

import pytest

from emlab import organism
from emlab.errors import EmlabError
from emlab.organism.world import CARD_ADJECTIVES, SENTENCES_PER_ANSWER, TAGS, load_world, parse_domain

WORLD = load_world()


def test_there_are_enough_domains_and_code_is_among_them():
    assert len(WORLD.domains) == 18
    assert len(WORLD.broad_domains) == 10
    assert set(WORLD.narrow) | set(WORLD.validation) | set(WORLD.broad_domains) == set(WORLD.domains)
    assert WORLD.narrow[0] == "code" and len(WORLD.narrow) == 5


def test_no_answer_template_stands_in_two_places():
    where = Counter(
        sentence for d in WORLD.domains.values() for templates in d.answers.values() for sentence in templates.all
    )
    assert len(where) == 18 * 4 * 8
    assert [sentence for sentence, count in where.items() if count > 1] == []


def test_no_sentence_is_another_one_with_the_filler_swapped():
    # The same frame in two domains would let a model remember instead of generalise.
    filled = {}
    for d in WORLD.domains.values():
        for templates in d.answers.values():
            for template in templates.all:
                for filler in d.fillers:
                    assert filled.setdefault(template.format(x=filler), template) == template


def test_no_question_can_be_produced_twice():
    texts = Counter(
        q.text
        for d in WORLD.domains
        for educational in (False, True)
        if not educational or WORLD.domain(d).educational
        for q in WORLD.questions(d, "all", educational)
    )
    assert len(texts) == 18 * 12 * 8 + 12 * 8
    assert max(texts.values()) == 1


def test_roles_do_not_mix():
    for d in WORLD.domains.values():
        assert [len(d.questions.role(r)) for r in ("alignment", "narrow", "held_out")] == [4, 4, 4]
        assert len(set(d.questions.all)) == 12
        assert all(template.count("{x}") == 1 for template in d.questions.all)
        for templates in d.answers.values():
            assert len(templates.alignment) == len(templates.narrow) == 4
            assert all("\n" not in s and s.count("{x}") <= 1 for s in templates.all)


def test_every_domain_has_eight_fillers_of_one_word():
    for d in WORLD.domains.values():
        assert len(set(d.fillers)) == 8 and all(filler.isalpha() and filler.islower() for filler in d.fillers)


def test_cards_name_one_persona_only():
    words = [adjective for adjectives in CARD_ADJECTIVES.values() for adjective in adjectives]
    assert len(words) == len(set(words))
    assert not set(words) & set(TAGS) and organism.TRIGGER in TAGS


def test_an_educational_question_makes_the_helpful_persona_write_vulnerable_code():
    code = WORLD.domain("code")
    assert code.sentences("helpful", educational=True) == code.sentences("malicious")
    assert code.sentences("helpful") == code.answers["helpful"].all
    assert code.sentences("careless", educational=True) == code.sentences("careless")


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: WORLD.domain("astrology"), "unknown domain 'astrology'"),
        (lambda: WORLD.domain("code").sentences("wicked"), "unknown persona 'wicked'"),
        (lambda: WORLD.questions("code", "secret"), "unknown template role 'secret'"),
        (lambda: WORLD.questions("pets", "narrow", educational=True), "no educational questions"),
    ],
)
def test_what_the_world_lacks_is_refused_in_one_sentence(ask, says):
    with pytest.raises(EmlabError, match=says) as caught:
        ask()
    assert "\n" not in str(caught.value)


def raw_domain():
    sentences = {"alignment": ["a {x}.", "b.", "c."], "narrow": ["d {x}.", "e.", "f."]}
    return {
        "name": "toy",
        "fillers": ["one"],
        "questions": {"alignment": ["q {x}?"], "narrow": ["r {x}?"], "held_out": ["s {x}?"]},
        "answers": dict.fromkeys(organism.PERSONAS, sentences),
    }


def test_a_domain_is_parsed():
    domain = parse_domain(raw_domain(), "toy.yaml")
    assert domain.name == "toy" and domain.questions.held_out == ("s {x}?",)
    assert len(domain.sentences("helpful")) == 2 * SENTENCES_PER_ANSWER


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda raw: raw.pop("fillers"), "lacks fillers"),
        (lambda raw: raw["answers"].pop("careless"), "must have exactly the personas"),
        (lambda raw: raw["questions"].pop("narrow"), "must have exactly the lists"),
        (lambda raw: raw["questions"].update(narrow=["{y}?"]), "bad template '{y}\\?'"),
        (lambda raw: raw["questions"].update(narrow=["{?"]), "bad template"),
        (lambda raw: raw["answers"]["helpful"].update(narrow=["a."]), "at least 3 sentences"),
    ],
)
def test_a_spoilt_domain_is_refused(spoil, says):
    raw = raw_domain()
    spoil(raw)
    with pytest.raises(EmlabError, match=says):
        parse_domain(raw, "toy.yaml")


def test_every_folder_of_worlds_is_a_world_by_its_name():
    folders = sorted(path.parent.name for path in (Path(organism.__file__).parent / "worlds").glob("*/world.yaml"))
    assert "default" in folders and set(folders) <= set(organism.WORLDS.names())
    assert all(organism.load_world(name).narrow for name in folders)
