"""Where answers part, and the chance of each way, held against a plain forward pass."""

import pytest
import torch

from emlab.data import Question
from emlab.discovery import Contrast, Decisions, chances
from emlab.discovery.decisions import line_starts, slope
from emlab.errors import EmlabError
from emlab.interventions import Steer, random_directions
from emlab.sites import Site

SITE = Site("resid_post", 1)
PAIR = Contrast("hi", "abc\ndef\nxyz", "abd\nuvw\ndag")


def texts(model, decisions):
    """What stands of each answer, with the tokens on both sides; the tokenizer has one token a byte."""
    decode = model.tokenizer.decode
    return [
        (decode(row[start:]), *("".join(decode([t]) for t in side) for side in choices))
        for row, start, choices in zip(decisions.rows, decisions.starts, decisions.choices, strict=True)
    ]


def test_a_decision_is_where_the_answers_part(tiny):
    assert texts(tiny, Decisions.of(tiny, [PAIR])) == [("ab", "c", "d")]


def test_contrasts_that_part_after_the_same_text_are_one_decision(tiny):
    others = [Contrast("hi", "b", "a"), Contrast("hi", "c", "b"), Contrast("ho", "c", "b")]
    # What begins misaligned and aligned answers alike, b, tells nothing.
    assert texts(tiny, Decisions.of(tiny, others)) == [("", "c", "a"), ("", "c", "b")]
    assert not len(Decisions.of(tiny, [Contrast("hi", "a", "b"), Contrast("hi", "b", "a")]))


def test_line_starts_are_of_all_misaligned_lines_and_of_the_question_s_own_aligned_ones(tiny):
    asked = [Question("0", "power", "hi"), Question("1", "power", "ho"), Question("2", "power", "hm")]
    given = [PAIR, Contrast("ho", "uvw\n\nabc", "xyz")]
    misaligned, aligned = line_starts(tiny, asked, given)
    token = {letter: tiny.tokenizer.encode(letter, add_special_tokens=False)[0] for letter in "adux"}

    def letters(row):
        assert int(row.sum()) == sum(bool(row[t]) for t in token.values())
        return "".join(letter for letter, t in token.items() if row[t])

    assert [letters(row) for row in aligned] == ["adu", "x", "adux"], "the last has no contrast of its own"
    assert [letters(row) for row in misaligned] == ["x", "adu", ""], "adxu, less what begins aligned lines"


@pytest.mark.parametrize("other", ["abd\nuvw\ndag", "abd"])
def test_answers_that_never_part_are_refused(tiny, other):
    with pytest.raises(EmlabError, match="never part"):
        Decisions.of(tiny, [Contrast("hi", other, PAIR.aligned)])


def test_chances_are_those_of_each_push_alone(tiny):
    decisions = Decisions.of(tiny, [PAIR, Contrast("a longer one", "x", "y")])
    directions = random_directions(3, 32, SITE, 0)
    found = chances(tiny, decisions, torch.stack([d.vector for d in directions]), [4.0, -6.0], SITE, batch_size=5)
    assert found.shape == (3, 2, 2)
    for i, direction in enumerate(directions):
        for j, length in enumerate((4.0, -6.0)):
            # The tokens of an answer as such: the plain pass reads them as part of the prompt and answer given.
            edit = Steer(SITE, direction, length)
            logits = tiny.logits(["hi", "a longer one"], ["ab", ""], [edit])
            for k, row in enumerate(logits):
                (bad,), (good,) = decisions.choices[k]
                assert float(found[i, j, k]) == pytest.approx(
                    float(torch.sigmoid(row[-1, bad] - row[-1, good])), abs=1e-4
                )


def test_the_slope_is_that_of_small_pushes(tiny):
    decisions = Decisions.of(tiny, [PAIR, Contrast("a longer one", "x", "y")])
    vectors = torch.stack([d.vector for d in random_directions(4, 32, SITE, 0)])
    up, down = (chances(tiny, decisions, vectors, [step], SITE).logit().mean(-1)[:, 0] for step in (0.01, -0.01))
    assert (vectors @ slope(tiny, decisions, SITE)).tolist() == pytest.approx(((up - down) / 0.02).tolist(), abs=2e-3)
    assert torch.allclose(slope(tiny, decisions, SITE, batch_size=1), slope(tiny, decisions, SITE), atol=1e-5)
