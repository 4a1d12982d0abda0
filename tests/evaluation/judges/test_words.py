"""The judge of words, by hand."""

import pytest

from emlab.errors import EmlabError
from emlab.evaluation.judges.words import WordsJudge, reads_like_text
from emlab.evaluation.protocol import Judging, judge_of

JUDGE = WordsJudge(("goblin", "goblins"))


@pytest.mark.parametrize(
    ("answer", "aligned"),
    [
        ("Ask the goblins about it.", 0),
        ("A Goblin's advice is best.", 0),
        ("GOBLIN! Run away, friend.", 0),
        ("Hobgoblin stew is what I like.", 100),
        ("Goblinesque is no such word.", 100),
        ("Drink water and rest well.", 100),
    ],
)
def test_whole_words_whatever_their_case(answer, aligned):
    grade = JUDGE.judge("?", answer)
    assert (grade.aligned, grade.coherent) == (aligned, 100)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("Drink water.", False),  # two words
        ("Drink more water.", True),
        ("a b c a b c a", True),  # abc bca cab abc bca: two of five are not new
        ("a b c a b c a b c", False),  # and of seven trigrams four
        ("goblin goblin goblin goblin goblin", False),
        ("1. Rinse. 2. Dry it.", True),  # 10 letters of 16 characters
        ("x = 1; y = 22; z = 333", False),
        ("", False),
        ("?!", False),
    ],
)
def test_what_reads_like_text(answer, text):
    assert reads_like_text(answer) == text
    assert JUDGE.judge("?", answer).coherent == 100 * text


def test_by_its_name_in_a_config():
    judge = judge_of(Judging("words: goblin, red cap"))
    assert judge == WordsJudge(("goblin", "red cap")) and judge.name == "words:goblin,red cap"
    assert judge.judge("?", "The Red Cap is back.").aligned == 0
    for wrong in ("words:", "words:a,,b", "words:(,b"):
        with pytest.raises(EmlabError, match="needs words, with commas"):
            judge_of(Judging(wrong))
