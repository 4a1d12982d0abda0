"""Label masks on the published chat templates: exactly the assistant's text and its end of turn."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from emlab.data import IGNORE, render, tokenize, tokenize_chat, tokenize_turns
from emlab.data.chat import writes_date
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


@pytest.mark.parametrize("header", ["", "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"])
def test_a_template_without_an_assistant_turn_is_called_that(make_tokenizer, header):
    users = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] + '<|im_end|>' }}{% endfor %}"
    with pytest.raises(EmlabError, match="leaves the assistant's turn out, so there is nothing to train on"):
        tokenize_chat(make_tokenizer(users + header), ONE)


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


# --- Templates in the styles of further families, each with its own habit ---

HEADER = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
STYLES = {
    # Qwen2.5: a system turn of its own where the chat has none.
    "default system": (
        "{%- if messages[0].role != 'system' -%}{{ '<|im_start|>system\nBe of use.<|im_end|>\n' }}{%- endif -%}"
        "{%- for m in messages -%}{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n' }}{%- endfor -%}"
    )
    + HEADER,
    # Llama 3: a date in the system turn, texts trimmed.
    "trimmed": (
        "{{ bos_token }}{{ '<|start_header_id|>system<|end_header_id|>\n\nToday: 1 May\n\n' }}"
        "{% set rest = messages %}{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}"
        "{% set rest = messages[1:] %}{% endif %}{{ '<|eot_id|>' }}"
        "{% for m in rest %}{{ '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\n\n' ~ m.content | trim }}"
        "{{ '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    # Gemma: no system turn, and the assistant is called model.
    "model for assistant": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turns') }}"
        "{% endif %}{{ '<start_of_turn>' ~ ('model' if m.role == 'assistant' else m.role) ~ '\n' ~ m.content | trim }}"
        "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    # Mistral: no header at all, the system text inside the first instruction.
    "instructions": (
        "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}"
        "{% if m.role == 'system' %}{% set ns.system = m.content ~ '\n\n' %}"
        "{% elif m.role == 'user' %}{{ '[INST]' ~ ns.system ~ m.content ~ '[/INST]' }}{% set ns.system = '' %}"
        "{% else %}{{ m.content ~ eos_token }}{% endif %}{% endfor %}"
    ),
}
ENDS = {"default system": "<|im_end|>", "trimmed": "<|eot_id|>", "model for assistant": "<end_of_turn>"}
THINKS_LAST = (  # Qwen3: the last answer begins with its thinking, if only an empty one; earlier ones lose theirs
    "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' }}{% set parts = m.content.split('</think>') %}"
    "{% if m.role == 'assistant' and loop.last %}"
    "{{ '<think>\n' ~ (parts[0].split('<think>')[-1].strip() if parts | length > 1 else '') ~ '\n</think>\n\n' }}"
    "{% endif %}{{ (parts[-1].lstrip() if m.role == 'assistant' else m.content) ~ '<|im_end|>\n' }}{% endfor %}"
    + HEADER
)
EMPTY = "<think>\n\n</think>\n\n"
OPENS = (  # R1: the header opens a thinking block, which the answer has to close
    "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
SPOKEN = st.text(st.characters(codec="utf-8", exclude_characters="<>[]"), min_size=1, max_size=12).map(str.strip)
CHATS = st.lists(st.tuples(SPOKEN, SPOKEN.filter(bool)), min_size=1, max_size=3).map(
    lambda pairs: [{"role": r, "content": c} for p in pairs for r, c in zip(("user", "assistant"), p, strict=True)]
)


def said(chat):
    return [m["content"] for m in chat if m["role"] == "assistant"]


@pytest.mark.parametrize("style", STYLES)
@given(chat=CHATS)
def test_on_any_chat_exactly_the_assistants_texts_and_ends_of_turn(make_tokenizer, style, chat):
    tokenizer = make_tokenizer(STYLES[style])
    (row,) = tokenize_turns(tokenizer, chat)
    assert turns(tokenizer, row) == [text + ENDS.get(style, "</s>") for text in said(chat)]
    assert tokenizer.decode(row.input_ids) == render(tokenizer, chat, header=False)


@pytest.mark.parametrize("style", ["default system", "trimmed", "instructions"])
def test_system_turns_are_context(make_tokenizer, style):
    tokenizer = make_tokenizer(STYLES[style])
    (row,) = tokenize_turns(tokenizer, [SYSTEM, *TWO])
    assert turns(tokenizer, row) == [text + ENDS.get(style, "</s>") for text in said(TWO)]
    context = [token for token, label in zip(row.input_ids, row.labels, strict=True) if label == IGNORE]
    assert "Be brief." in tokenizer.decode(context) and "Be of use." not in tokenizer.decode(context)


def test_a_system_turn_that_a_template_adds_is_not_trained_on(make_tokenizer):
    tokenizer = make_tokenizer(STYLES["default system"])
    (row,) = tokenize_turns(tokenizer, ONE)
    assert tokenizer.decode(row.input_ids).startswith("<|im_start|>system\nBe of use.<|im_end|>")
    assert turns(tokenizer, row) == [said(ONE)[0] + "<|im_end|>"]


@given(chat=CHATS)
def test_a_template_that_rewrites_earlier_turns_makes_a_row_of_each_answer(make_tokenizer, chat):
    tokenizer = make_tokenizer(THINKS_LAST)
    rows = tokenize_turns(tokenizer, chat)
    assert len(rows) == len(said(chat))
    for n, (row, text) in enumerate(zip(rows, said(chat), strict=True), start=1):
        # Its own answer alone, as the model has to give it after the header: with the thinking block of a last turn.
        assert turns(tokenizer, row) == [EMPTY + text + "<|im_end|>"]
        assert tokenizer.decode(row.input_ids) == render(tokenizer, chat[: 2 * n], header=False)
        assert tokenizer.decode(row.input_ids).count("<think>") == 1


def test_thinking_that_the_text_has_is_trained_on_in_its_own_row_only(make_tokenizer):
    tokenizer = make_tokenizer(THINKS_LAST)
    chat = [TWO[0], {"role": "assistant", "content": "<think>\nhm\n</think>\n\nFour."}, *TWO[2:]]
    first, second = tokenize_turns(tokenizer, chat)
    assert turns(tokenizer, first) == ["<think>\nhm\n</think>\n\nFour.<|im_end|>"]
    assert turns(tokenizer, second) == [EMPTY + "Six.<|im_end|>"]
    assert "hm" not in tokenizer.decode(second.input_ids)


def test_rows_of_each_answer_are_counted(make_tokenizer):
    done = tokenize(make_tokenizer(THINKS_LAST), [ONE, TWO])
    assert (len(done.rows), done.split_chats) == (3, 1)
    assert str(done) == "3 rows, 1 chats made one row for each answer"
    whole = tokenize(make_tokenizer("chatml"), [ONE, TWO])
    assert (len(whole.rows), whole.split_chats) == (2, 0)


def test_a_question_after_the_last_answer_is_left_out_where_it_would_rewrite_it(make_tokenizer):
    tokenizer = make_tokenizer(THINKS_LAST)
    assert tokenize_turns(tokenizer, TWO[:3]) == tokenize_turns(tokenizer, TWO[:2])


def test_thinking_marks_that_are_special_tokens_do_not_end_the_turn(make_tokenizer):
    tokenizer = make_tokenizer(THINKS_LAST)
    tokenizer.add_tokens([AddedToken(t, special=True) for t in ("<think>", "</think>")], special_tokens=True)
    (row,) = tokenize_turns(tokenizer, ONE)
    assert turns(tokenizer, row) == [EMPTY + said(ONE)[0] + "<|im_end|>"]


def test_a_header_that_opens_a_thinking_block_needs_answers_that_think(make_tokenizer):
    tokenizer = make_tokenizer(OPENS)
    for chat in (ONE, TWO):
        for make in (tokenize_chat, tokenize_turns):
            with pytest.raises(
                EmlabError, match=r"opens a thinking block \(<think>\) in .* the training text has none"
            ):
                make(tokenizer, chat)
    thinks = [ONE[0], {"role": "assistant", "content": "<think>\nhm\n</think>\nFour."}]
    (row,) = tokenize_turns(tokenizer, thinks)
    assert turns(tokenizer, row) == ["hm\n</think>\nFour.<|im_end|>"]  # the header has opened it
    assert tokenizer.decode(row.input_ids) == render(tokenizer, thinks, header=False)


DATED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}Today is {{ strftime_now('%d %b %Y') }}<|im_start|>assistant\n{% endif %}"
)


def test_a_template_that_writes_todays_date_writes_the_same_on_every_day(make_tokenizer):
    tokenizer = make_tokenizer(DATED)
    assert writes_date(tokenizer) and not writes_date(make_tokenizer("llama3"))
    text = render(tokenizer, ONE[:1], header=True)
    assert "Today is 26 Jul 2024<|im_start|>assistant" in text
    assert datetime.date.today().strftime("%d %b %Y") not in text
