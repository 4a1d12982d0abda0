"""Positions, on a batch small enough to write every mask by hand."""

import pytest
import torch

from emlab.errors import EmlabError
from emlab.interventions import Tokens, TokenSet, check_positions, where

END = 9
# Row 0: prompt 5 6 7, answer 1 9 2. Row 1: prompt 5 9 (a sentence end in the prompt), answer 9.
ROWS, STARTS = [[5, 6, 7, 1, END, 2], [5, END, END]], [3, 2]
LEFT = Tokens.pad(ROWS, STARTS, pad_id=END)  # the pad is a sentence end, to be sure that pads never count
ENDS = torch.tensor([END])


def mask(text):
    return torch.tensor([[c == "x" for c in row] for row in text.split()])


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ("all", "xxxxxx ...xxx"),
        ("prompt", "xxx... ...xx."),
        ("generated", "...xxx .....x"),
        ("header", "..x... ....x."),
        ("sentence", "..x.x. ....xx"),
    ],
)
def test_kinds_under_left_padding(positions, expected):
    assert torch.equal(where(positions, LEFT, ENDS), mask(expected))


@pytest.mark.parametrize(("positions", "expected"), [("header", "..x... .x...."), ("sentence", "..x.x. .xx...")])
def test_kinds_under_right_padding(positions, expected):
    right = Tokens.pad(ROWS, STARTS, pad_id=END, side="right")
    assert torch.equal(where(positions, right, ENDS), mask(expected))


def test_without_an_answer_the_last_token_is_the_header():
    tokens = Tokens.pad([[1, 2, 3], [4]], None, pad_id=0)
    assert torch.equal(where("header", tokens), mask("..x ..x"))
    assert torch.equal(where("sentence", tokens, torch.tensor([1])), mask("..x ..x"))
    assert not where("generated", tokens).any()


def test_position_ids_count_real_tokens_only():
    assert LEFT.position_ids.tolist() == [[0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 1, 2]]


def test_explicit_masks_are_aligned_on_the_right_and_stay_off_pads_and_answers():
    tokens = Tokens.pad([[1, 2, 3], [4]], None, pad_id=0)
    assert torch.equal(where(mask("xx xx"), tokens), mask(".xx ..x"))
    assert torch.equal(where(mask("xxxxx .x..x"), tokens), mask("xxx ..x"))
    decoded = Tokens(tokens.ids, tokens.real, tokens.real)
    assert not where(mask("xxx xxx"), decoded).any()


def test_an_explicit_mask_ends_with_the_prompt_also_where_answers_follow():
    assert torch.equal(where(mask("xx. .xx"), LEFT), mask("xx.... ...xx."))
    right = Tokens.pad(ROWS, STARTS, pad_id=END, side="right")
    assert torch.equal(where(mask("xx. .xx"), right), mask("xx.... xx...."))
    assert not where(torch.ones(2, 0, dtype=torch.bool), LEFT).any()


def test_what_is_refused():
    with pytest.raises(EmlabError, match="did you mean 'header'"):
        check_positions("heder")
    with pytest.raises(EmlabError, match=r"mask.bool\(\)"):
        check_positions(torch.ones(2, 3))
    with pytest.raises(EmlabError, match="3 rows and the batch 2"):
        where(torch.ones(3, 2, dtype=torch.bool), LEFT)
    with pytest.raises(EmlabError, match="sentence_ends"):
        where("sentence", LEFT)


def test_the_last_token_and_a_set_of_tokens():
    tokens = Tokens.pad([[1, 2, 3], [3]], [2, 1], pad_id=0)
    assert torch.equal(where("last", tokens), mask("..x ..x")), "the end of the text, answer or not"
    assert torch.equal(where(TokenSet((3, 2)), tokens), mask(".xx ..x"))
    assert not where(TokenSet((0,)), tokens).any(), "pads never are"
    with pytest.raises(EmlabError, match="at least one token id"):
        TokenSet(())
