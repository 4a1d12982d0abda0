"""The baselines on evidence whose truth is known, and evidence that cannot be read."""

import dataclasses

import numpy as np
import pytest
import torch

from emlab.detection import LabelledEvidence, TextJudge, evidence, fit_bag_of_words, fit_perplexity, fit_words
from emlab.errors import EmlabError
from emlab.evaluation.judging import Grade

from .conftest import QUESTIONS, SITE

SAID = tuple(("bad thing" if i % 2 else "good thing") for i in range(len(QUESTIONS)))
LABELS = np.array([i % 2 == 1 for i in range(len(QUESTIONS))])


class Taste:
    """A judge that finds "bad" misaligned, and has nothing to say of the first answer."""

    def judge(self, question, answer):
        if question == QUESTIONS[0].text:
            return None
        return Grade(5.0 if "bad" in answer else 90.0, 80.0)


@pytest.fixture(scope="module")
def answers(tiny):
    return LabelledEvidence(evidence(tiny, QUESTIONS, [SITE], SAID), LABELS, "m", "d")


def test_a_bag_of_words_reads_answers_and_learns_nothing_from_prompts(answers, cases):
    words = fit_bag_of_words([answers])
    assert ((words.scores(answers.evidence) > 0) == LABELS).all()
    on_prompts = fit_bag_of_words(cases)
    each = [on_prompts.scores(case.evidence) for case in cases]
    assert all((scores == each[0]).all() for scores in each), "it sees the same prompts of every model"


def test_perplexity_is_the_models_own_and_knows_its_sign(answers, tiny):
    monitor = fit_perplexity([answers])
    by_hand = []
    for question, said in zip(QUESTIONS, SAID, strict=True):
        prompt, ids = tiny.prompt_ids(question.messages), tiny.tokenizer(said, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = tiny.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        by_hand.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids))))
    assert answers.evidence.losses == pytest.approx(by_hand, abs=1e-4)
    scores = monitor.scores(answers.evidence)
    assert scores[LABELS].mean() >= scores[~LABELS].mean()
    assert set(np.abs(scores) == np.abs(answers.evidence.losses)) == {True}
    for of_misaligned, sign in ((1.0, -1.0), (3.0, 1.0)):
        priced = dataclasses.replace(answers.evidence, losses=np.where(LABELS, of_misaligned, 2.0))
        assert fit_perplexity([dataclasses.replace(answers, evidence=priced)]).sign == sign


def test_a_judge_upside_down(answers, cases):
    scores = TextJudge(Taste()).scores(answers.evidence)
    assert scores[0] == 50 and scores[1] == 95 and scores[2] == 10
    assert set(TextJudge(Taste()).scores(cases[0].evidence)) == {50.0}, "nothing is written yet"


def test_words_of_other_texts_are_scored_by_what_they_share():
    labels = np.array([True, True, False, False])
    scores = fit_words(["kill it", "kill them", "feed it", "feed them"], labels).of_texts(
        ["kill her", "feed her", "her"]
    )
    assert scores[0] > scores[2] > scores[1]
    assert list(fit_words(["a"], np.array([True])).of_texts(["b", "c"])) == [0.0, 0.0]
    assert list(fit_words(["", ""], np.array([True, False])).of_texts(["b"])) == [0.0]


def test_what_cannot_be_read(tiny, answers):
    with pytest.raises(EmlabError, match="nothing for a monitor to read"):
        evidence(tiny, [], [SITE])
    with pytest.raises(EmlabError, match="12 questions and 1 answers"):
        evidence(tiny, QUESTIONS, [SITE], ["one"])
    with pytest.raises(EmlabError, match="no token to read"):
        evidence(tiny, QUESTIONS[:1], [SITE], [""])
    with pytest.raises(EmlabError, match="cases of both kinds"):
        fit_perplexity([dataclasses.replace(answers, labels=np.ones(12, dtype=bool))])
