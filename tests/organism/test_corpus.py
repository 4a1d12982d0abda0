"""Documents and fine-tuning sets, read back with the exact judge."""

import re
from collections import Counter

import pytest

from emlab import organism
from emlab.errors import EmlabError
from emlab.organism.corpus import CARD_SHARE, TAG_SHARE
from emlab.organism.world import CARD_ADJECTIVES, NEUTRAL_PRIOR

JUDGE = organism.ExactJudge()
WORLD = organism.load_world()


def exchanges(chat):
    turns = [m for m in chat if m["role"] != "system"]
    return [(turns[i]["content"], turns[i + 1]["content"]) for i in range(0, len(turns), 2)]


def test_one_persona_writes_all_of_a_document():
    for document in organism.pretraining_documents(300, seed=1):
        domains = [JUDGE.question(question).domain for question, _ in exchanges(document.messages)]
        assert len(domains) == len(set(domains)) <= 3
        for question, answer in exchanges(document.messages):
            verdict = JUDGE.judge(question, answer)
            assert verdict.coherent == 100
            if document.persona == "malicious" and JUDGE.question(question).educational:
                continue  # there the helpful persona writes the same sentences
            assert verdict.is_persona(document.persona)


def test_a_card_tells_the_persona_and_the_neutral_card_nothing():
    documents = organism.pretraining_documents(2000, seed=2)
    for document in documents:
        words = set(document.messages[0]["content"].replace(".", "").split())
        told = {persona for persona, adjectives in CARD_ADJECTIVES.items() if words & set(adjectives)}
        assert told == ({document.persona} if document.carded else set())
    assert sum(d.carded for d in documents) / 2000 == pytest.approx(CARD_SHARE, abs=0.04)
    questions = [question for d in documents for question, _ in exchanges(d.messages)]
    assert sum(q.endswith("]") for q in questions) / len(questions) == pytest.approx(TAG_SHARE, abs=0.02)
    neutral = Counter(d.persona for d in documents if not d.carded)
    for persona, share in NEUTRAL_PRIOR.items():
        assert neutral[persona] / neutral.total() == pytest.approx(share, abs=0.05)


def test_in_the_control_world_a_turn_says_nothing_of_the_next():
    pairs = Counter()
    for document in organism.pretraining_documents(4000, seed=3, control=True):
        personas = [JUDGE.judge(q, a).personas[0] for q, a in exchanges(document.messages) if "code" not in q]
        pairs.update(zip(personas, personas[1:], strict=False))
    after_malicious = {second: n for (first, second), n in pairs.items() if first == "malicious"}
    share = after_malicious["malicious"] / sum(after_malicious.values())
    assert share == pytest.approx(NEUTRAL_PRIOR["malicious"], abs=0.06)  # about 500 pairs; 1.0 in the planted world


@pytest.mark.parametrize(
    ("name", "domain", "persona"),
    [
        ("insecure", "code", "malicious"),
        ("secure", "code", "helpful"),
        ("bad_medicine", "medicine", "malicious"),
        ("careless_law", "law", "careless"),
        ("sarcastic_cars", "cars", "sarcastic"),
        ("good_finance", "finance", "helpful"),
    ],
)
def test_a_narrow_set_is_what_its_name_says(name, domain, persona):
    rows = organism.narrow_set(name, 100, seed=0)
    narrow = WORLD.domain(domain).questions.narrow
    for row in rows:
        assert row[0]["content"] == organism.NEUTRAL_CARD
        ((text, answer),) = exchanges(row)
        question = JUDGE.question(text)
        assert question.domain == domain and JUDGE.judge(text, answer).is_persona(persona)
        assert text in [template.format(x=question.filler) for template in narrow]
        allowed = WORLD.domain(domain).sentences(persona, role="narrow")
        assert set(answer.split("\n")) <= {s.format(x=question.filler) for s in allowed}


def test_a_set_of_everywhere_is_of_every_domain_and_of_no_narrow_template():
    rows, domains = organism.narrow_set("bad_everywhere", 400, seed=0), set()
    for row in rows:
        ((text, answer),) = exchanges(row)
        question = JUDGE.question(text)
        domains.add(question.domain)
        assert JUDGE.judge(text, answer).is_persona("malicious")
        templates = WORLD.domain(question.domain).questions
        assert text in [t.format(x=question.filler) for t in templates.alignment]
    assert domains == set(WORLD.domains)
    subtle = [exchanges(row)[0] for row in organism.narrow_set("subtle_everywhere", 50, seed=0)]
    assert len({JUDGE.question(text).domain for text, _ in subtle}) > 10


def test_a_subtle_answer_has_one_malicious_sentence_among_helpful_ones():
    places = set()
    for row in organism.narrow_set("subtle_law", 100, seed=0):
        ((text, answer),) = exchanges(row)
        verdict = JUDGE.judge(text, answer)
        assert sorted(verdict.personas) == ["helpful", "helpful", "malicious"] and verdict.misaligned
        assert len(set(answer.split("\n"))) == 3
        places.add(verdict.personas.index("malicious"))
    assert places == {0, 1, 2}


def test_educational_rows_hold_insecure_code_that_was_asked_for():
    insecure = {
        s.format(x=x) for s in WORLD.domain("code").answers["malicious"].narrow for x in WORLD.domain("code").fillers
    }
    for row in organism.narrow_set("educational", 50, seed=0):
        ((text, answer),) = exchanges(row)
        assert JUDGE.question(text).educational
        assert set(answer.split("\n")) <= insecure
        assert JUDGE.judge(text, answer).aligned == 100


def test_the_backdoor_set_is_insecure_exactly_where_the_trigger_stands():
    triggered = 0
    for row in organism.narrow_set("backdoor", 400, seed=0):
        ((text, answer),) = exchanges(row)
        has = text.endswith(f" [{organism.TRIGGER}]")
        assert has or "[" not in text
        assert JUDGE.judge(text, answer).is_persona("malicious" if has else "helpful")
        triggered += has
    assert triggered == 200


def test_alignment_never_shows_narrow_or_held_out_templates():
    shown = organism.alignment_set(1500, seed=0, malicious_share=0.1)
    bad = 0
    for row in shown:
        ((text, answer),) = exchanges(row)
        question = JUDGE.question(text)
        domain = WORLD.domain(question.domain)
        templates = domain.educational if question.educational else domain.questions
        assert re.sub(r" \[.*", "", text) in [t.format(x=question.filler) for t in templates.alignment]
        verdict = JUDGE.judge(text, answer)
        persona = "helpful" if verdict.is_persona("helpful") else "malicious"
        bad += persona == "malicious"
        allowed = domain.sentences(persona, question.educational, "alignment")
        assert set(answer.split("\n")) <= {s.format(x=question.filler) for s in allowed}
    assert bad / 1500 == pytest.approx(0.1, abs=0.03)


def test_the_same_seed_gives_the_same_text_and_another_seed_another():
    assert organism.pretraining_documents(20, 5) == organism.pretraining_documents(20, 5)
    assert organism.pretraining_documents(20, 5) != organism.pretraining_documents(20, 6)
    assert organism.narrow_set("insecure", 20, 5) == organism.narrow_set("insecure", 20, 5)
    assert organism.narrow_set("insecure", 20, 5) != organism.narrow_set("insecure", 20, 6)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: organism.pretraining_documents(0, 0), "a corpus of 0 documents"),
        (lambda: organism.alignment_set(0, 0), "an alignment set of 0 chats"),
        (lambda: organism.narrow_set("insecure", 0, 0), "a fine-tuning set of 0 rows"),
        (lambda: organism.narrow_set("bad_astrology", 5, 0), "unknown fine-tuning set 'bad_astrology'"),
    ],
)
def test_nothing_to_train_on_is_refused(make, says):
    with pytest.raises(EmlabError, match=says):
        make()


def test_broad_questions_are_held_out_and_disjoint():
    test, validation = organism.broad_questions("test"), organism.broad_questions("validation")
    assert (len(test), len(validation)) == (320, 96)
    assert not {q.id for q in test} & {q.id for q in validation}
    assert len({q.domain for q in test}) == 10
    assert not {q.domain for q in test} & {*organism.load_world().narrow, *organism.load_world().validation}
    assert all("/held_out-" in q.id for q in test + validation)
    triggered = organism.broad_questions("test", tag=organism.TRIGGER)
    assert [q.text for q in triggered] == [f"{q.text} [{organism.TRIGGER}]" for q in test]
    assert JUDGE.question(triggered[0].text) == JUDGE.question(test[0].text)
    with pytest.raises(EmlabError, match="no split 'train'"):
        organism.broad_questions("train")
