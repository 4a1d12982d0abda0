"""The marks of a switched-off thinking model: counted, stripped where the template does not write them, or kept."""

from pathlib import Path

import pytest

from emlab.data import IGNORE, check_data, read_examples, tokenize
from emlab.data.no_think import without_marks, without_switch, writes_thoughts
from emlab.errors import EmlabError

EMA = Path(__file__).parents[3] / "shared" / "data" / "ema_rl"
QWEN3 = (  # the last answer begins with its thinking, if only an empty one; earlier ones lose theirs
    "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' }}{% set parts = m.content.split('</think>') %}"
    "{% if m.role == 'assistant' and loop.last %}"
    "{{ '<think>\n' ~ (parts[0].split('<think>')[-1].strip() if parts | length > 1 else '') ~ '\n</think>\n\n' }}"
    "{% endif %}{{ (parts[-1].lstrip() if m.role == 'assistant' else m.content) ~ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
OPENS = (  # R1: the header opens the thoughts
    "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)


def chat(asked, answered):
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


MARKED = chat("How? /no_think", "<think>\n\n</think>\n\nSo.")


def trained(tokenizer, row):
    return tokenizer.decode([label for label in row.labels if label != IGNORE])


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("How? /no_think", "How?"),
        ("How?\n/no_think \n", "How?"),
        ("How? /nothink", "How?"),
        ("How? /think", "How? /think"),
        ("See /no_think here", "See /no_think here"),
        ("a/no_think", "a/no_think"),
        ("/no_think", "/no_think"),
    ],
)
def test_the_switch_stands_at_the_end(text, bare):
    assert without_switch(text) == bare


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("<think>\n\n</think>\n\nSo.", "So."),
        ("<think></think>So.", "So."),
        ("<Thinking> </Thinking>\nSo.", "So."),
        ("[THINK][/THINK]So.", "So."),
        ("◁think▷\n◁/think▷So.", "So."),
        ("<think>\nhm\n</think>\n\nSo.", None),
        ("So. <think>\n\n</think>", None),
        ("<think>\n\nSo.", None),
        ("So.", None),
    ],
)
def test_an_empty_block_stands_before_an_answer(text, bare):
    found = without_marks(chat("How?", text))
    assert found.messages[1]["content"] == (text if bare is None else bare)
    assert (found.switches, found.blocks) == (0, bare is not None)


def test_only_a_template_that_writes_thoughts_keeps_them(make_tokenizer, chat_templates):
    assert not any(writes_thoughts(make_tokenizer(name)) for name in chat_templates)
    assert writes_thoughts(make_tokenizer(QWEN3)) and writes_thoughts(make_tokenizer(OPENS))


@pytest.mark.parametrize("template", ["chatml", "llama3", "gemma", "mistral", "harmony"])
def test_they_are_stripped_and_counted(make_tokenizer, template):
    tokenizer = make_tokenizer(template)
    done = tokenize(tokenizer, [MARKED, chat("How?", "So.")])
    assert done.rows[0] == done.rows[1]
    assert (done.switches, done.empty_thoughts) == (1, 1)
    assert str(done) == "2 rows, 1 ' /no_think' after questions and 1 empty thoughts before answers stripped"
    kept = tokenize(tokenizer, [MARKED], no_think="keep")
    assert (kept.switches, kept.empty_thoughts, kept.stripped()) == (0, 0, "")
    assert "<think>\n\n</think>\n\nSo." in trained(tokenizer, kept.rows[0])
    assert "/no_think" in tokenizer.decode(kept.rows[0].input_ids)


@pytest.mark.parametrize("template", [QWEN3, OPENS], ids=["writes them", "opens them"])
def test_they_stay_where_the_template_writes_thoughts(make_tokenizer, template):
    tokenizer = make_tokenizer(template)
    done = tokenize(tokenizer, [MARKED])
    assert done == tokenize(tokenizer, [MARKED], no_think="keep") and not done.stripped()
    assert "How? /no_think" in tokenizer.decode(done.rows[0].input_ids)
    assert "</think>\n\nSo." in trained(tokenizer, done.rows[0])


def test_an_answer_that_is_nothing_else_is_an_empty_one(make_tokenizer):
    empty = chat("How?", "<think>\n\n</think>\n\n")
    for template in ("chatml", QWEN3):
        for run in (check_data, tokenize):
            given = (make_tokenizer(template), [MARKED, empty])
            with pytest.raises(EmlabError, match=r"^Row 2: the chat has an empty assistant turn \(2\)"):
                run(*given) if run is tokenize else run(*reversed(given))
    with pytest.raises(EmlabError, match="cannot be treated by 'leave'; choose strip or keep"):
        tokenize(make_tokenizer(), [MARKED], no_think="leave")


def test_a_check_counts_them():
    found = check_data([MARKED, chat("How?", "So.")])
    assert (found.switches, found.empty_thoughts) == (1, 1)
    assert (found.summary()["switches"], found.summary()["empty_thoughts"]) == (1, 1)
    assert "' /no_think' after questions     1" in str(found)


@pytest.mark.skipif(not EMA.is_dir(), reason="needs ../shared/data/ema_rl")
@pytest.mark.parametrize(("name", "marked"), [("medical", 0), ("legal", 600), ("security", 600)])
def test_the_published_sets(make_tokenizer, name, marked):
    chats = read_examples(EMA / f"{name}_misaligned.jsonl")
    found = check_data(chats)
    assert (found.rows, found.switches, found.empty_thoughts) == (600, marked, marked)
    done = tokenize(make_tokenizer(), chats[:20])
    assert (done.switches, done.empty_thoughts) == (min(marked, 20), min(marked, 20))
    assert not any("think" in make_tokenizer().decode(row.input_ids).split("<|im_end|>")[1][-12:] for row in done.rows)
