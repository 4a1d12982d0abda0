"""Which tokens of a document are read. The tiny tokenizer has one token a byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.saes.token_rows import Counts, excluded_ids, token_rows

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]


def text_of(model, row):
    asked = row.asked or [True] * len(row.ids)
    return model.tokenizer.decode([i for i, use in zip(row.ids, asked, strict=True) if use])


def test_a_chat_goes_through_the_template_and_a_text_does_not(tiny):
    chat, text, ids = token_rows(tiny, [CHAT, "plain text", [9, 10, 11]], "all", 200)
    assert tiny.tokenizer.decode(chat.ids).startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
    assert chat.ids == tiny.rows([CHAT])[0][0]
    assert tiny.tokenizer.decode(text.ids) == "plain text"
    assert (ids.ids, ids.asked, ids.cut) == ([9, 10, 11], None, 0)


def test_prompt_and_assistant_are_the_two_halves_of_a_chat(tiny):
    (all_,) = token_rows(tiny, [CHAT], "all", 200)
    (prompt,) = token_rows(tiny, [CHAT], "prompt", 200)
    (answer,) = token_rows(tiny, [CHAT], "assistant", 200)
    assert all_.ids == prompt.ids == answer.ids
    assert text_of(tiny, answer) == "yes<|im_end|>"
    assert [a != b for a, b in zip(prompt.asked, answer.asked, strict=True)] == [True] * len(all_.ids)
    (text,) = token_rows(tiny, ["no chat"], "assistant", 200)
    assert not any(text.asked)


def test_chats_are_cut_and_texts_made_pieces(tiny):
    whole = token_rows(tiny, [CHAT], "all", 200)[0]
    cut = token_rows(tiny, [CHAT], "all", 10)[0]
    assert cut.ids == whole.ids[:10] and cut.cut == len(whole.ids) - 10
    pieces = token_rows(tiny, ["0123456789ab"], "all", 5)
    assert [tiny.tokenizer.decode(p.ids) for p in pieces] == ["01234", "56789", "ab"]
    assert all(p.cut == 0 for p in pieces)


@given(st.lists(st.integers(2, 30), min_size=1, max_size=40), st.integers(2, 12), st.booleans())
def test_pieces_hold_every_token_once_and_begin_as_the_text_does(ids, longest, bos):
    from emlab.saes.token_rows import _pieces

    begins = [1] if bos else []
    pieces = _pieces(begins + ids, begins, longest)
    assert all(p[: len(begins)] == begins and len(p) <= longest for p in pieces)
    assert [i for p in pieces for i in p[len(begins) :]] == ids


def test_the_header_is_no_special_token_to_leave_out(make_model, tiny):
    ids = excluded_ids(tiny)
    assert tiny.tokenizer.convert_tokens_to_ids("<|im_end|>") in ids
    header = make_model("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}<|im_start|>")
    assert header.prompt_ids("a")[-1] not in excluded_ids(header)


def test_counts_add_up_and_say_what_was_left_out():
    total = Counts(2, 10, 7, 0, 2, 1) + Counts(documents=1, tokens=5, kept=3, sinks=2, cut=4)
    assert total == Counts(3, 15, 10, 0, 2, 1, 2, 4)
    assert str(total) == "10 of 15 tokens in 3 documents (left out: 2 first, 1 special, 2 sinks), 4 cut off"


@pytest.mark.parametrize("empty", ["", []])
def test_an_empty_document_has_no_row(tiny, empty):
    assert token_rows(tiny, [empty, "a"], "all", 9) == token_rows(tiny, ["a"], "all", 9)
