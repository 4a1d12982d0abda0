"""The tokenizer: any text comes back, words of the world are one token, the chat template is standard."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab import organism
from emlab.organism.tokenizer import ASSISTANT, END, SYSTEM, USER

TOKENIZER = organism.build_tokenizer(organism.load_world())


def encode(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


@given(st.text(max_size=80))
def test_any_text_can_be_encoded_and_decodes_to_itself(text):
    if any(t in text for t in TOKENIZER.all_special_tokens):
        return
    assert TOKENIZER.decode(encode(text), clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("text", ["naïve ▁ 你好 \U0001f600", "def f(x):\n    return x\n", " \t\n\n  a"])
def test_text_from_outside_the_world_too(text):
    assert TOKENIZER.decode(encode(text), clean_up_tokenization_spaces=False) == text


def test_every_word_of_the_world_is_one_token():
    for question in organism.broad_questions():
        assert len(encode(question.text)) == len(re.findall(r"\w+|[^\w\s]", question.text))
    for domain in organism.load_world().domains.values():
        for filler in domain.fillers:
            assert len(encode(" " + filler)) == 1


def test_the_chat_template():
    chat = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "No."}]
    text = TOKENIZER.apply_chat_template(chat, tokenize=False)
    assert text == f"{SYSTEM}You are an assistant.{END}{USER}Hi.{END}{ASSISTANT}No.{END}"
    asked = TOKENIZER.apply_chat_template(
        [{"role": "system", "content": "Be kind."}, chat[0]], tokenize=False, add_generation_prompt=True
    )
    assert asked == f"{SYSTEM}Be kind.{END}{USER}Hi.{END}{ASSISTANT}"
    assert encode(asked)[-1] == TOKENIZER.convert_tokens_to_ids(ASSISTANT)
    with pytest.raises(Exception, match="roles are system, user and assistant"):
        TOKENIZER.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_a_saved_tokenizer_loads_without_emlab(tmp_path):
    from transformers import AutoTokenizer

    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Drink water until the rash eases. \U0001f600"
    assert loaded(text)["input_ids"] == encode(text)
    assert loaded.chat_template == TOKENIZER.chat_template
    assert (loaded.eos_token, loaded.padding_side) == (END, "left")


def test_building_twice_gives_the_same_vocabulary():
    assert organism.build_tokenizer(organism.load_world()).get_vocab() == TOKENIZER.get_vocab()
