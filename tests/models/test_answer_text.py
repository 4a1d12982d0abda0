"""Answers in channels (harmony, gpt-oss): only the final channel is the answer, in sampling, reading and training."""

import pytest

from emlab.data.chat import tokenize_chat
from emlab.data.thoughts import closing_mark, split_thoughts
from emlab.models.answer_text import answer_lead, answer_texts
from emlab.models.loading import _unpacked


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return make_tokenizer("harmony")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
            "<think>Hm.</think>Yes.",
        ),
        ("<|channel|>final<|message|>Yes.", "Yes."),
        ("<|channel|>final<|message|>One.<|end|><|start|>assistant<|channel|>final<|message|>Two.", "Two."),
        ("<|channel|>analysis<|message|>I think and thi", "<think>I think and thi"),
        ("<|channel|>analysis<|message|>", "<think>"),
        ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>fin", "<think>Hm."),
        ("no channel at all", "no channel at all"),
        ("", ""),
    ],
)
def test_the_answer_is_what_stands_in_the_last_final_channel_after_the_thoughts_of_others(tokenizer, written, said):
    ids = tokenizer(written, add_special_tokens=False)["input_ids"]
    assert answer_texts(tokenizer, [ids, ids]) == [said, said]


def test_other_tokenizers_are_decoded_as_ever(make_tokenizer):
    plain = make_tokenizer("chatml")
    ids = plain("<|im_start|>a b<|im_end|>", add_special_tokens=False)["input_ids"]
    assert answer_texts(plain, [ids]) == ["a b"] == plain.batch_decode([ids], skip_special_tokens=True)
    assert answer_lead(plain, [{"role": "user", "content": "a"}]) == ""


def test_an_answer_is_read_in_its_channel(make_model):
    model = make_model("harmony")
    rows, starts = model.rows(["Why?"], ["Because."])
    text = model.tokenizer.decode(rows[0])
    assert text.endswith("Why?<|end|><|start|>assistant<|channel|>final<|message|>Because.")
    assert model.tokenizer.decode(rows[0][starts[0] :]) == "<|channel|>final<|message|>Because."
    assert rows[0][: starts[0]] == model.prompt_ids("Why?")


def test_the_channel_and_the_answer_are_trained_on(tokenizer):
    chat = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    ids, labels = tokenize_chat(tokenizer, chat)
    trained = tokenizer.decode([i for i, label in zip(ids, labels, strict=True) if label >= 0])
    assert trained == "<|channel|>final<|message|>Because.<|return|>"


def test_generation_stops_at_the_end_of_the_answer_and_not_of_a_thought(make_model):
    model = make_model("harmony")
    stops = {model.tokenizer.decode([i]) for i in model.stop_ids}
    assert "<|return|>" in stops and "<|end|>" not in stops


def test_packed_weights_are_unpacked():
    from transformers import GptOssConfig, LlamaConfig

    packed = GptOssConfig(quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": []})
    assert _unpacked(packed)["quantization_config"].dequantize is True
    assert _unpacked(LlamaConfig()) == {}


@pytest.mark.parametrize("mark", ["<think>", "[THINK]", "<|START_THINKING|>"])
def test_marks_of_thoughts_that_are_special_tokens_stay(make_tokenizer, mark):
    tokenizer = make_tokenizer("chatml")
    tokenizer.add_special_tokens({"additional_special_tokens": [mark, closing_mark(mark)]})
    text = f"{mark}It is 20.{closing_mark(mark)}Yes."
    ids = tokenizer(f"{text}<|im_end|>", add_special_tokens=False)["input_ids"]
    assert answer_texts(tokenizer, [ids, ids[:3]]) == [text, f"{mark}It"]
    assert split_thoughts(answer_texts(tokenizer, [ids])[0]) == ("It is 20.", "Yes.")


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ '<think>\\n' }}{% endif %}"
)


def test_an_answer_is_read_after_the_thoughts_that_the_header_opens(make_model):
    model = make_model(THINKING)
    rows, starts = model.rows(["Why?"], ["Because."])
    assert model.tokenizer.decode(rows[0]).endswith("<|im_start|>assistant\n<think>\n</think>\n\nBecause.")
    assert rows[0][: starts[0]] == model.prompt_ids("Why?")
    whole = model.rows(["Why?"], ["Hm.\n</think>\n\nBecause."])[0]
    assert model.tokenizer.decode(whole[0]).endswith("<|im_start|>assistant\n<think>\nHm.\n</think>\n\nBecause.")


def test_what_a_model_writes_after_such_a_header_is_thought(make_model):
    model = make_model(THINKING)
    assert model.generate(["Why?"], max_new_tokens=4) == [""], "random weights close no thoughts"
    (kept,) = model.generate(["Why?"], max_new_tokens=4, thoughts=True)
    assert kept.startswith("<think>")
    plain = make_model()
    assert plain.generate(["Why?"], max_new_tokens=4) == plain.generate(["Why?"], max_new_tokens=4, thoughts=True)
