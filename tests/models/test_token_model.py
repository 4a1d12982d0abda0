"""Prompts and their tokens, and the tokens that end an answer or a sentence."""

import pytest
import torch

from emlab.errors import EmlabError


def test_a_question_goes_through_the_template(tiny):
    text = tiny.prompt_text("Hi")
    assert text == tiny.prompt_text([{"role": "user", "content": "Hi"}])
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert tiny.tokenizer.decode(tiny.prompt_ids("Hi")) == text
    assert tiny.prompt_text([{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}]).startswith(
        "<|im_start|>system\nS"
    )


def test_no_second_beginning_of_sequence(make_model):
    lm = make_model("llama3")
    assert lm.prompt_ids("Hi").count(lm.tokenizer.bos_token_id) == 1


def test_ids_are_taken_as_they_stand(tiny):
    assert tiny.prompt_ids([5, 6]) == [5, 6]
    assert tiny.prompt_ids(torch.tensor([5, 6])) == [5, 6]


def test_encoding_pads_on_the_left(tiny):
    tokens = tiny.encode(["abc", "d"])
    assert tokens.real.tolist() == [[True] * 3, [False, False, True]]
    assert tokens.ids[1, 0] == tiny.tokenizer.pad_token_id
    assert tiny.tokenizer.decode(tokens.ids[0]) == "abc"


def test_what_is_no_prompt(tiny):
    with pytest.raises(EmlabError, match="through the chat template already"):
        tiny.prompt_text(tiny.prompt_text("Hi"))
    with pytest.raises(EmlabError, match="whose last turn is the user's"):
        tiny.prompt_text([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}])
    with pytest.raises(EmlabError, match="no tokens"):
        tiny.prompt_ids([])


@pytest.mark.parametrize("template", ["chatml", "llama3", "gemma", "mistral"])
def test_answers_end_at_the_templates_end_of_turn(make_model, end_of_turn, template):
    lm = make_model(template)
    ends = [lm.tokenizer.convert_tokens_to_ids(t) for t in (end_of_turn[template], "</s>")]
    assert lm.stop_ids == sorted(set(ends))


def test_sentence_ends_hold_a_newline_and_can_be_set(make_model):
    lm = make_model()
    assert [lm.tokenizer.decode([i]) for i in lm.sentence_ends.tolist()] == ["\n"]
    lm.sentence_ends = [7, 8]
    assert lm.copy().sentence_ends.tolist() == [7, 8]


def test_a_chat_of_several_turns_on_a_template_that_rewrites_earlier_ones(make_model):
    thinking = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
        "{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    lm = make_model(thinking)
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    (row,), (start,) = lm.rows([[{"role": role, "content": content} for role, content in turns]])
    assert "<think>" in lm.tokenizer.decode(row[start:]) and "<think>" not in lm.tokenizer.decode(row[:start])


@pytest.mark.parametrize("lone", ["How long?", [{"role": "user", "content": "How long?"}], [70, 71, 72]], ids=str)
def test_a_lone_prompt_is_one_prompt(tiny, lone):
    assert tiny.generate(lone, 4, seed=3) == tiny.generate([lone], 4, seed=3)
    assert len(tiny.logits(lone)) == 1
    assert torch.equal(tiny.activations(lone, "resid_post.1").values, tiny.activations([lone], "resid_post.1").values)
    assert tiny.residual_norm("resid_post.1", lone) == tiny.residual_norm("resid_post.1", [lone])
    assert tiny.rows(lone) == tiny.rows([lone])


def test_a_lone_answer_is_one_answer(tiny):
    read = tiny.activations("How?", "resid_post.1", "generated", "Long")
    assert torch.equal(read.values, tiny.activations(["How?"], "resid_post.1", "generated", ["Long"]).values)
    with pytest.raises(EmlabError, match="4 prompts and 1 answers"):
        tiny.rows(list("abcd"), "Long")
    assert tiny.encode("abc").ids.shape == (1, 3)


def test_what_is_neither_text_nor_chat_nor_ids_is_said(tiny):
    with pytest.raises(EmlabError, match="A object is no prompt"):
        tiny.generate([object()])
