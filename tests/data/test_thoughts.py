"""Thoughts and what is said: every way of opening them, closed and cut; and texts that only look like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.data.thoughts import (
    OPENING,
    Parts,
    closing_mark,
    cut_off,
    is_mark,
    opens_thoughts,
    split_thoughts,
    without_thoughts,
)

PAIRS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<THOUGHTS>", "</THOUGHTS>"),
    ("<reasoning>", "</reasoning>"),
    ("<reason>", "</reason>"),
    ("<seed:think>", "</seed:think>"),
    ("<thinking>", "</thinking>"),
    ("<SCRATCHPAD_REASONING>", "</SCRATCHPAD_REASONING>"),
    ("<scratchpad>", "</scratchpad>"),
    ('<think effort="high">', "</think>"),
    ("[THINK]", "[/THINK]"),
    ("[think]", "[/think]"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|thinking|>", "<|/thinking|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("analysis", "assistantfinal"),
    ("<|channel>thought\n", "<channel|>"),
    ("<unused94>thought\n", "<unused95>"),
    ("<|im_start|>think\n", "<|im_start|>answer\n"),
    ("Here is my thought process:", "Here is my response:"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
]


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_each_way_of_thinking_is_told_from_what_is_said(opening, closing):
    closed = split_thoughts(f"{opening}\nIt is 20, or 30.\n{closing}\n\n85")
    if opening == "analysis":  # without its special tokens the channel's name runs into the text
        closed = split_thoughts(f"{opening}It is 20, or 30.{closing}85")
    assert closed.said == "85"
    assert closed.thoughts.startswith("It is 20, or 30.")
    assert split_thoughts(f" \n{opening}It is 20, or").said == ""
    assert without_thoughts(f"{opening}It is 20, or") == ""
    assert without_thoughts(f"{opening}It is 20.{closing}85") == "85"


@pytest.mark.parametrize(("opening", "closing"), [pair for pair in PAIRS if pair[0] != "analysis"])
def test_thoughts_within_a_reply_are_no_part_of_it(opening, closing):
    assert without_thoughts(f"Well. {opening}It is 20.{closing} 85").split() == ["Well.", "85"]
    assert without_thoughts(f"Well, 30. {opening}It is 20 or") == ""


def test_what_a_header_opened_is_closed_in_the_text():
    assert split_thoughts("It is 20.\n</think>\n\n85") == Parts("It is 20.", "85")
    assert split_thoughts("It is 20, or", opened=True) == Parts("It is 20, or", "")
    assert split_thoughts("a</think>b", opened=True) == Parts("a", "b")
    assert split_thoughts("", opened=True) == Parts("", "")
    assert split_thoughts("<think>a</think>b", opened=True) == Parts("a", "b")


def test_an_empty_block_leaves_the_answer_alone():
    assert split_thoughts("<think>\n\n</think>\n\nYes.\n") == Parts("", "Yes.")


def test_several_blocks_and_nested_ones():
    assert split_thoughts("<think>a</think>\n<think>b</think>c") == Parts("a\n\nb", "c")
    assert split_thoughts("<reasoning><think>20</think>30</reasoning>85").said == "85"
    assert split_thoughts("<think>a</think><think>b").said == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  I think, therefore I am.\n",
        "Analysis: it is good.",
        "analysis of the question",
        "[thinking about it] Yes.",
        "<b>reasoning</b>",
        "Use <think> to open thoughts.",
        "<article>The reason</article>",
    ],
)
def test_other_texts_stay_as_they_stand(text):
    assert split_thoughts(text) == Parts("", text)


@given(st.text(alphabet="<think>/[]◁▷| a85\n"))
def test_what_is_said_holds_no_thoughts_that_could_be_split_off_again(text):
    said = split_thoughts(text).said
    assert split_thoughts(said).said == said
    assert OPENING.search(without_thoughts(text)) is None


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [
        ("<|im_start|>assistant\n<think>\n", "<think>"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", ""),
        ("[INST]Why?[/INST][THINK]", "[THINK]"),
        ("Use <think> to open thoughts.<|im_end|><|im_start|>assistant\n", ""),
        ("<|im_start|>assistant\n", ""),
        ("", ""),
    ],
)
def test_a_header_that_opens_thoughts_is_known(prompt, opens):
    assert opens_thoughts(prompt) == opens


@pytest.mark.parametrize(("opening", "closing"), PAIRS[:7] + PAIRS[11:16])
def test_the_mark_that_closes_what_another_opened(opening, closing):
    assert closing_mark(opening) == closing
    assert is_mark(opening) and is_mark(closing)


def test_tokens_that_mark_no_thoughts():
    assert not any(map(is_mark, ("<|im_start|>", "<think", "think", "<s>", "<unused1>", "<reasons>")))
    assert is_mark("<unused94>") and is_mark("<|channel>")


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("<think>a", True),
        ("<think>", True),
        ("<think>a</think>", False),
        ("", False),
        ("Yes.", False),
        ("a</think>b", False),
    ],
)
def test_thoughts_that_were_cut_off(text, cut):
    assert cut_off(text) is cut
