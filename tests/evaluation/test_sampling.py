"""Sampling settings taken whole give what they give one by one."""

from emlab.evaluation import Sampling, sample

QUESTIONS = ["Who keeps the gate?", "What is in the well?"]


def test_settings_taken_whole_are_those_taken_one_by_one(tiny):
    how = Sampling(per_question=2, temperature=0.7, max_new_tokens=5, batch_size=3)
    one_by_one = sample(tiny, QUESTIONS, 2, 7, 0.7, 5, batch_size=3)
    assert how.sample(tiny, QUESTIONS, 7) == one_by_one
    assert len(how.sample(tiny, QUESTIONS, 7, per_question=1)) == 2
    assert how.generate(tiny, QUESTIONS, 7) == tiny.generate(QUESTIONS, 5, 0.7, 7, 3)
