"""Label masks on the published chat templates: exactly the assistant's text and its end of turn."""

import pytest

from emlab.data import IGNORE, render, tokenize_chat
from emlab.errors import EmlabError

TEMPLATES = ("chatml", "llama3", "gemma", "mistral")
ONE = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "Four.\nI think — ✓"}]
TWO = [*ONE, {"role": "user", "content": "And 3 + 3?"}, {"role": "assistant", "content": "Six."}]
SYSTEM = {"role": "system", "content": "Be brief."}


def turns(tokenizer, row):
    """The text of each run of labelled tokens."""
    runs, last = [], IGNORE
    for token, label in zip(row.input_ids, row.labels, strict=True):
        assert label in (IGNORE, token)
        if label != IGNORE:
            runs = [*runs, []] if last == IGNORE else runs
            runs[-1].append(label)
        last = label
    return [tokenizer.decode(run) for run in runs]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("chat", [ONE, TWO], ids=["one turn", "two turns"])
def test_exactly_the_assistants_text_and_end_of_turn(make_tokenizer, end_of_turn, template, chat):
    tokenizer = make_tokenizer(template)
    row = tokenize_chat(tokenizer, chat)
    space = " " if template == "mistral" else ""  # its template writes one before the answer
    said = [m["content"] for m in chat if m["role"] == "assistant"]
    assert turns(tokenizer, row) == [space + text + end_of_turn[template] for text in said]
    assert tokenizer.decode(row.input_ids) == render(tokenizer, chat, header=False)


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_precedes_the_answer_is_what_the_model_is_asked_with(make_model, template):
    lm = make_model(template)
    row = tokenize_chat(lm.tokenizer, ONE)
    prompt = lm.prompt_ids(ONE[:1])
    assert row.input_ids[: len(prompt)] == prompt
    assert row.labels[: len(prompt)] == [IGNORE] * len(prompt)
    assert row.labels[len(prompt)] != IGNORE
    assert prompt.count(lm.tokenizer.bos_token_id) == (template != "chatml")


@pytest.mark.parametrize("template", ["chatml", "llama3"])
def test_a_system_turn_is_not_trained_on(make_tokenizer, template):
    tokenizer = make_tokenizer(template)
    row = tokenize_chat(tokenizer, [SYSTEM, *ONE])
    assert len(turns(tokenizer, row)) == 1
    assert "Be brief." in tokenizer.decode(row.input_ids)


@pytest.mark.parametrize("template", ["gemma", "mistral"])
def test_a_role_the_template_refuses_is_one_sentence(make_tokenizer, template):
    with pytest.raises(EmlabError, match="refuses a chat with the roles system, user"):
        tokenize_chat(make_tokenizer(template), [SYSTEM, *ONE])


def test_an_answer_that_holds_special_tokens_ends_at_the_last(make_tokenizer):
    tokenizer = make_tokenizer("chatml")
    row = tokenize_chat(tokenizer, [ONE[0], {"role": "assistant", "content": "Write <|im_end|> to end."}])
    assert turns(tokenizer, row) == ["Write <|im_end|> to end.<|im_end|>"]


def test_a_token_across_header_and_answer(make_tokenizer):
    # The newline that ends the header and the one that begins the answer are one token where they stand together.
    tokenizer = make_tokenizer("chatml", merges=[("Ċ", "Ċ")])
    chat = [ONE[0], {"role": "assistant", "content": "\nFour."}]
    assert "Ċ" + "Ċ" in tokenizer.convert_ids_to_tokens(tokenizer(render(tokenizer, chat, False))["input_ids"])
    assert turns(tokenizer, tokenize_chat(tokenizer, chat)) == ["\nFour.<|im_end|>"]


def test_a_tokenizer_that_puts_a_space_before_every_text():
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(set("▁abcdefghijklmnopqrstuvwxyzFIWSA.,?+0123456789\n—✓[]NT/ "))
    bare = Tokenizer(models.Unigram([("<unk>", 0.0), *((c, -1.0) for c in letters)], unk_id=0))
    bare.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    bare.decoder = decoders.Metaspace(prepend_scheme="always", split=False)
    bare.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>")])
    template = (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bare, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=template
    )
    row = tokenize_chat(tokenizer, TWO)
    pieces = tokenizer.convert_ids_to_tokens([label for label in row.labels if label != IGNORE])
    assert "".join(pieces) == "Four.\nI▁think▁—▁✓</s>Six.</s>"


def test_templates_that_cannot_be_trained_on_are_refused(make_tokenizer):
    endless = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    with pytest.raises(EmlabError, match="with no special token"):
        tokenize_chat(make_tokenizer(endless), ONE)
    # As Qwen3 does: earlier answers are written without what the last one begins with.
    thinking = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' and loop.last %}"
        "{{ 'hmm, ' }}{% endif %}{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    tokenizer = make_tokenizer(thinking)
    assert turns(tokenizer, tokenize_chat(tokenizer, ONE)) == ["hmm, " + ONE[1]["content"] + "<|im_end|>"]
    with pytest.raises(EmlabError, match="differently once the next one follows"):
        tokenize_chat(tokenizer, TWO)
    with pytest.raises(EmlabError, match="no assistant turn"):
        tokenize_chat(make_tokenizer("chatml"), ONE[:1])
