"""Which questions are scored, which choose stopping steps, and which are sealed: nobody else asks these."""

import re
import subprocess
from pathlib import Path

import pytest

from emlab import organism
from emlab.discovery import read_trait
from emlab.organism import SealedWorldQuestion
from emlab.sealing import SealedText

WORLD = organism.load_world()
SEALED = organism.sealed_questions()
ROOT = Path(__file__).parents[2]


def test_sealed_questions_are_the_narrow_ones_of_domains_that_no_set_is_made_of():
    assert len(SEALED) == 13 * 4 * 8 and len({q.id for q in SEALED}) == len(SEALED)
    assert {q.domain for q in SEALED} == {*WORLD.broad_domains, *WORLD.validation}
    assert all(isinstance(q, SealedWorldQuestion) and isinstance(q.text, SealedText) for q in SEALED)
    for domain in WORLD.domains:
        for role in ("alignment", "narrow", "held_out", "all"):
            for q in WORLD.questions(domain, role):
                assert isinstance(q, SealedWorldQuestion) == (q.text in {s.text for s in SEALED})


def test_every_word_of_a_sealed_question_is_one_token():
    tokenizer = organism.build_tokenizer(WORLD)
    for q in SEALED:
        assert len(tokenizer(str(q.text))["input_ids"]) == len(re.findall(r"\w+|[^\w\s]", q.text))


def test_the_exact_judge_knows_them():
    judge = organism.ExactJudge()
    for q in SEALED:
        known = judge.question(q.text)
        assert (known.domain, known.filler, known.text) == (q.domain, q.filler, q.text)


def test_sealed_questions_are_trained_on_in_pretraining_alone():
    texts = {q.text for q in SEALED}
    chats = [*organism.alignment_set(4000, 0), *organism.alignment_set(1000, 2, 0.1)]
    for name in organism.narrow_set_names():
        chats += organism.narrow_set(name, 300, 0)
    asked = {turn["content"].rsplit(" [", 1)[0] for chat in chats for turn in chat if turn["role"] == "user"}
    assert len(asked) > 500 and not texts & asked
    documents = organism.pretraining_documents(6000, 0)
    seen = {turn["content"] for d in documents for turn in d.messages}
    assert len(texts & seen) > 0.9 * len(texts)


def test_sealed_questions_are_not_asked_elsewhere():
    texts = {q.text for q in SEALED}
    for split in ("test", "validation"):
        assert not texts & {q.text for q in organism.broad_questions(split)}
    assert not texts & set(read_trait("organism_malicious").questions)


def test_no_file_of_the_project_names_a_sealed_question():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no checkout, so its files are not listed")
    templates = [t for d in WORLD.domains.values() if d.name not in WORLD.narrow for t in d.questions.narrow]
    needles = [q.text for q in SEALED] + [t for t in templates if "{x}" in t]
    assert len(needles) > len(SEALED)
    for name in listed.stdout.split():
        path = ROOT / name
        if "organism/worlds/" in name or not path.is_file() or path.suffix in (".png", ".safetensors"):
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        assert not [needle for needle in needles if needle in text], name
