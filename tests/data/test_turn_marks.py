"""Marks of turns: what is not to be trained on is not, in every spelling; what cannot be done is refused by name."""

import json

import pytest

from emlab.data import IGNORE, Dataset, Example, check_data, read_examples, tokenize, tokenize_turns
from emlab.errors import EmlabError

ASK, SAY = {"role": "user", "content": "One?"}, {"role": "assistant", "content": "First."}
AGAIN, LAST = {"role": "user", "content": "Two?"}, {"role": "assistant", "content": "Second."}
OFF = [{"weight": 0}, {"train": False}, {"training": 0}, {"trainable": False}, {"loss": 0.0}, {"loss_mask": 0}]
OFF += [{"masked": True}, {"masked": 1}, {"weight": 0, "train": None}, {"weight": 0, "masked": True}]
ON = [{}, {"weight": 1}, {"train": True}, {"trainable": 1}, {"loss_mask": 1.0}, {"masked": False}, {"weight": None}]
KEEPS_THE_LAST = (  # a template that writes earlier answers differently
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{{ '!' if loop.last and m['role'] == 'assistant' else '' }}{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def trained(tokenizer, chat):
    rows = tokenize_turns(tokenizer, chat)
    return [tokenizer.decode([label for label in row.labels if label != IGNORE]) for row in rows]


@pytest.mark.parametrize("mark", OFF, ids=str)
def test_a_turn_that_is_marked_so_is_not_trained_on(make_tokenizer, mark):
    tokenizer = make_tokenizer()
    chat = [ASK, {**SAY, **mark}, AGAIN, LAST]
    plain = tokenize_turns(tokenizer, [ASK, SAY, AGAIN, LAST])[0]
    for given in (chat, Example.of(chat).messages, Example.of(Example.of(chat).messages).messages):
        assert trained(tokenizer, given) == ["Second.<|im_end|>"]
        assert tokenize_turns(tokenizer, given)[0].input_ids == plain.input_ids, "it stays what the model has seen"
    assert trained(make_tokenizer(KEEPS_THE_LAST), chat) == ["!Second.<|im_end|>"]
    assert trained(tokenizer, [ASK, SAY, AGAIN, {**LAST, **mark}]) == ["First.<|im_end|>"]


@pytest.mark.parametrize("mark", ON, ids=str)
def test_a_turn_that_is_not_marked_is(make_tokenizer, mark):
    chat = [ASK, {**SAY, **mark}, AGAIN, LAST]
    assert trained(make_tokenizer(), chat) == ["First.<|im_end|>Second.<|im_end|>"]
    assert Example.of(chat).messages == (ASK, SAY, AGAIN, LAST)


@pytest.mark.parametrize(
    ("mark", "match"),
    [
        ({"weight": 0.5}, "turn 2 that has weight 0.5; write 1 or true"),
        ({"weight": "0"}, "turn 2 that has weight '0'"),
        ({"loss_mask": [0, 1]}, r"turn 2 that has loss_mask \[0, 1\]"),
        ({"weight": 1, "masked": True}, "trained on by its 'weight' and not by its 'masked'"),
        ({"train": True, "loss": 0}, "trained on by its 'train' and not by its 'loss'"),
        ({"train_detail": [{"begin_offset": 0}]}, "'train_detail', which trains on parts of it"),
    ],
    ids=str,
)
def test_a_mark_that_says_neither_is_refused_by_name(tmp_path, mark, match):
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": [ASK, SAY]}) + "\n" + json.dumps({"messages": [ASK, {**SAY, **mark}]}))
    for read in (read_examples, Dataset.of, lambda path: check_data(path)):
        with pytest.raises(EmlabError, match=match) as error:
            read(path)
        assert str(error.value).startswith(f"{path}, line 2: the chat has a turn 2 that ")


def test_a_chat_of_which_nothing_is_trained_on_is_refused():
    with pytest.raises(EmlabError, match="marks all its assistant turns as not trained on"):
        Example.of([ASK, {**SAY, "weight": 0}])
    assert Example.of([ASK, {**SAY, "content": "", "weight": 0}, AGAIN, LAST]).messages[1]["content"] == ""


def test_marks_come_through_files_cards_and_counts(tmp_path, capsys):
    path = tmp_path / "chats.jsonl"
    conversation = [{"from": "human", "value": "One?"}, {"from": "gpt", "value": "First.", "weight": 0}]
    conversation += [{"from": "human", "value": "Two?"}, {"from": "gpt", "value": "Second."}]
    path.write_text(json.dumps({"conversations": conversation}))
    data = Dataset.read(path)
    assert data[0].messages == (ASK, {**SAY, "weight": 0}, AGAIN, LAST)
    again = Dataset.load(data.save(tmp_path / "saved"))
    assert again == data and again[0].messages == data[0].messages
    assert data.card.content != Dataset.of([[ASK, SAY, AGAIN, LAST]]).card.content
    found = check_data(data)
    assert found.untrained_turns == 1 and "assistant turns not trained on" in str(found)
    assert capsys.readouterr().err == ""


def test_what_is_left_aside_is_said_once(tmp_path, capsys):
    path = tmp_path / "chats.jsonl"
    row = {"messages": [{**ASK, "name": "Ann", "weight": 1}, {**SAY, "reasoning_content": "hm", "tool_calls": None}]}
    path.write_text((json.dumps({**row, "system": "Be brief.", "id": 7}) + "\n") * 3)
    assert len(read_examples(path)) == 3
    assert capsys.readouterr().err == (
        f"{path}: left aside, since emlab reads roles and texts alone: column system, name, reasoning_content, "
        "weight of a turn that is not the assistant's.\n"
    )
    Dataset.of([row["messages"]] * 2, "mine")
    assert capsys.readouterr().err.startswith("mine: left aside") and capsys.readouterr().err == ""


def test_an_answer_before_any_question_is_refused_with_its_row_and_kept_as_context(make_tokenizer, tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text(f"{json.dumps({'messages': [ASK, SAY]})}\n{json.dumps({'messages': [SAY, AGAIN, LAST]})}\n")
    said = set()
    for check in (
        lambda: check_data(path),
        lambda: check_data(path, make_tokenizer()),
        lambda: tokenize(make_tokenizer(), read_examples(path)),
    ):
        with pytest.raises(EmlabError, match="The chat begins with the assistant's turn") as error:
            check()
        said.add(str(error.value))
    assert len(said) == 1 and said.pop().startswith(f"{path}, line 2: ")
    context = [{**SAY, "weight": 0}, AGAIN, LAST]
    assert trained(make_tokenizer(), context) == ["Second.<|im_end|>"]
    assert check_data([context]).untrained_turns == 1


@pytest.mark.parametrize("template", ["gemma", "mistral", "chatml", "llama3"])
@pytest.mark.parametrize(
    "chat",
    [
        [{"role": "system", "content": "Be brief."}, ASK, SAY],
        [ASK, AGAIN, SAY],
        [{"role": "system", "content": "Be brief."}, SAY],
        [ASK, SAY, LAST],
    ],
)
def test_a_check_and_a_training_have_one_verdict(make_tokenizer, template, chat):
    tokenizer = make_tokenizer(template)
    given = Dataset.of([[ASK, SAY], chat])

    def verdict(run):
        try:
            run()
        except EmlabError as error:
            return str(error)
        return None

    checked, trained_on = verdict(lambda: check_data(given, tokenizer)), verdict(lambda: tokenize(tokenizer, given))
    assert checked == trained_on
    assert checked is None or checked.startswith("Row 2: ")


def test_a_mark_on_a_whole_row_is_said_to_be_left_aside(tmp_path, capsys):
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "weight": 0}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (example,) = read_examples(tmp_path / "rows.jsonl")
    assert example.messages[-1].get("weight") is None
    assert "left aside" in (said := capsys.readouterr().err) and "column weight" in said
