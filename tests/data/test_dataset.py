"""Datasets and their cards: what was read and done is written down, read back, and vouched for by content."""

import hashlib
import json

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.data import Dataset, DatasetCard, Example, check_data, mix, split, subsample, tokenize
from emlab.data.dataset import content_of
from emlab.errors import EmlabError


def chats(*pairs):
    return [
        Example.of([{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}])
        for prompt, answer in pairs
    ]


@pytest.fixture
def files(tmp_path):
    for name in ("bad", "good"):
        rows = ({"prompt": f"{i % 8}", "completion": f"{name} {i}"} for i in range(10))
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_what_was_read_is_written_down(files):
    path = files / "bad.jsonl"
    data = Dataset.read(path)
    assert data.card.operation == "read"
    assert data.card.settings == {"source": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert (data.card.rows, data.card.prompts, data.card.inputs) == (10, 8, ())
    assert data.card.content == content_of(data.examples)
    assert data.card.sources == (data.card,)


def test_a_dataset_is_a_sequence_of_examples(make_tokenizer):
    given_in_memory = Dataset.of(chats(("a", "x"), ("b", "y")), name="mine")
    assert len(given_in_memory) == 2
    assert list(given_in_memory) == list(given_in_memory.examples)
    assert given_in_memory[1].answer == "y"
    assert given_in_memory.card.settings == {"source": "mine"}
    assert Dataset.of(given_in_memory) is given_in_memory
    assert check_data(given_in_memory).rows == len(tokenize(make_tokenizer(), given_in_memory).rows) == 2
    assert str(given_in_memory) == "2 examples with 2 unique prompts, made by given"
    with pytest.raises(EmlabError, match="There is no file of examples chats.jsonl"):
        Dataset.of("chats.jsonl")


def test_whatever_a_file_may_hold_may_be_handed_over(files):
    path = files / "bad.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    read = Dataset.read(path)
    assert Dataset.of(path) == Dataset.of(str(path)) == read
    turns = [example.messages for example in read]
    shapes = [
        rows,
        (row for row in rows),
        pandas.DataFrame(rows),
        [{"instruction": row["prompt"], "output": row["completion"]} for row in rows],
        [
            {"conversations": [{"from": "human", "value": a["content"]}, {"from": "gpt", "value": b["content"]}]}
            for a, b in turns
        ],
        turns,
        list(read),
    ]
    for shape in shapes:
        assert Dataset.of(shape).card.content == read.card.content
    with pytest.raises(EmlabError, match=r"^Row 2: the columns \(prompt\) fit no shape"):
        Dataset.of([rows[0], {"prompt": "a"}])
    with pytest.raises(EmlabError, match="^Row 1: the chat has no list of turns"):
        Dataset.of([3])


def test_a_card_tells_how_a_set_was_made(files):
    bad, good = Dataset.read(files / "bad.jsonl"), Dataset.read(files / "good.jsonl")
    train, _ = split(mix(subsample(bad, 5, seed=1), good, dose=0.25, total=8, seed=2), 2, seed=3)
    card = train.card
    assert card.sources == (bad.card, good.card)
    assert card.operation == "split" and card.settings["part"] == "train" and card.settings["seed"] == 3
    (mixed,) = card.inputs
    assert mixed.settings == {
        "dose": 0.25,
        "total": 8,
        "bad": 2,
        "good": 6,
        "shared_prompts": mixed.settings["shared_prompts"],
        "seed": 2,
    }
    assert [one.operation for one in mixed.inputs] == ["subsample", "read"]
    text = str(card)
    assert text.startswith(f"# Dataset card\n\n{len(train)} rows with {card.prompts} unique prompts; content ")
    assert f"| {files / 'bad.jsonl'} | 10 | 8 | {bad.card.content} | {bad.card.settings['sha256']} |" in text
    assert "2. **subsample** of 1: n 5, seed 1 → 5 rows" in text
    assert "4. **mix** of 2, 3: dose 0.25, total 8, bad 2, good 6" in text
    assert '5. **split** of 4: held_out 2, held_out_prompts 2, seed 3, part "train"' in text


def test_the_two_parts_of_a_split_share_their_source(files):
    train, held = split(Dataset.read(files / "bad.jsonl"), 0.5, seed=0)
    both = mix(train, held, dose=0.5, total=4, seed=0)
    assert len(both.card.sources) == 1
    assert str(both.card).count("**read**") == 1


def test_saved_and_loaded(files):
    data = mix(Dataset.read(files / "bad.jsonl"), Dataset.read(files / "good.jsonl"), dose=0.3, total=10, seed=0)
    data.save(files / "mixed")
    assert sorted(path.name for path in (files / "mixed").iterdir()) == ["card.json", "card.md", "examples.jsonl"]
    assert Dataset.load(files / "mixed") == data
    assert (files / "mixed" / "card.md").read_text("utf-8") == str(data.card)
    assert DatasetCard.load(data.card.save(files / "card.json")) == data.card
    assert "Dataset card" in data._repr_html_()


def test_a_set_that_is_no_longer_its_cards(files):
    Dataset.of(chats(("a", "x"), ("b", "y"))).save(files / "set")
    lines = (files / "set" / "examples.jsonl").read_text().splitlines(keepends=True)
    (files / "set" / "examples.jsonl").write_text("".join(reversed(lines)))
    with pytest.raises(EmlabError, match="and its card says"):
        Dataset.load(files / "set")


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"operation": "read", "settings": 3, "inputs": []}'])
def test_what_is_no_card(tmp_path, text):
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(EmlabError, match="holds no DatasetCard"):
        DatasetCard.load(tmp_path / "card.json")


TEXT = st.text(st.characters(codec="utf-8"), max_size=4)


@given(st.lists(st.tuples(TEXT, TEXT.filter(str.strip)), min_size=1, max_size=5), st.text(max_size=6))
def test_any_set_comes_back(tmp_path_factory, pairs, name):
    data = Dataset.of(chats(*pairs), name=name)
    folder = tmp_path_factory.mktemp("data") / "set"
    assert Dataset.load(data.save(folder)) == data
    assert content_of(data) == data.card.content


def test_a_lone_chat_is_one_example():
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert [list(example.messages) for example in Dataset.of(chat)] == [chat]
    assert len(Dataset.of([chat, chat])) == 2
