"""Answers that cannot be graded are sampled again, so many times and no more."""

import numpy as np
import torch

from emlab.data import Question
from emlab.evaluation import Grade, Judged, Rollouts
from emlab.evaluation.resampling import _put, sample_valid
from emlab.evaluation.rollouts import row_seed
from emlab.interventions import Ablate
from emlab.sites import Site

QUESTIONS = [Question("q1", "d", "Why?"), Question("q2", "d", "How?")]


class Stubborn:
    """Grades an answer to q1 at once, and one to q2 only at the third attempt."""

    name = "stubborn"

    def __init__(self, valid_at):
        self.seen, self.valid_at = [], valid_at

    def grade(self, rollouts):
        self.seen.append([question.id for question in rollouts.questions])
        late = Grade(outcome="off_topic") if len(self.seen) < self.valid_at else Grade(0.0, 100.0)
        return [Grade(100.0, 100.0) if question.id == "q1" else late for question in rollouts.questions]


def test_only_invalid_answers_are_sampled_again(tiny):
    by = Stubborn(valid_at=3)
    judged, again = sample_valid(tiny, QUESTIONS, 2, 0, by, max_new_tokens=4)
    assert by.seen == [["q1", "q1", "q2", "q2"], ["q2", "q2"], ["q2", "q2"]]
    assert again.tolist() == [0, 0, 2, 2]
    assert judged.outcomes == ("scored",) * 4
    assert np.array_equal(judged.aligned, [100, 100, 0, 0])
    first, _ = sample_valid(tiny, QUESTIONS, 2, 0, Stubborn(valid_at=1), max_new_tokens=4)
    assert judged.rollouts.answers[:2] == first.rollouts.answers[:2]
    assert judged.rollouts.answers[2:] != first.rollouts.answers[2:]


def test_each_attempt_is_sampled_as_the_first_was_with_a_seed_of_its_own(tiny):
    how = {"temperature": 0.7, "max_new_tokens": 4, "top_p": 0.9}
    edit = Ablate(Site("resid_post", 1), torch.ones(tiny.d_model))
    judged, _ = sample_valid(tiny, QUESTIONS, 2, 5, Stubborn(valid_at=3), **how, edits=[edit])
    seeds = [row_seed(QUESTIONS[1], i, 5 + 2) for i in (2, 3)]
    expected = tiny.generate([QUESTIONS[1].messages] * 2, seed=seeds, edits=[edit], **how)
    assert list(judged.rollouts.answers[2:]) == expected


def test_what_is_known_of_an_answer_is_put_in_its_place():
    def of(names, value):
        kept = [f"{name} {value}" for name in names]
        rollouts = Rollouts((QUESTIONS[0],) * len(kept), tuple(kept), "m", 0, 1.0, tuple(kept), thoughts=tuple(kept))
        numbers = np.full(len(kept), float(value))
        return Judged(rollouts, numbers, numbers + 1, ("scored",) * len(kept), tuple(kept), "j")

    found = _put(of("abc", 1), np.array([0, 2]), of("ac", 5))
    expected = ("a 5", "b 1", "c 5")
    rollouts = found.rollouts
    assert (rollouts.answers, rollouts.failures, rollouts.thoughts, found.said) == (expected,) * 4
    assert (found.aligned.tolist(), found.coherent.tolist()) == ([5, 1, 5], [6, 2, 6])


def test_after_so_many_attempts_it_stays_invalid(tiny, tmp_path):
    by = Stubborn(valid_at=99)
    judged, again = sample_valid(tiny, QUESTIONS, 1, 0, by, attempts=3, max_new_tokens=4, store=tmp_path / "s.db")
    assert len(by.seen) == 4 and again.tolist() == [0, 3]
    assert judged.outcomes == ("scored", "off_topic")
