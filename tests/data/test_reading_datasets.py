"""Reading parquet, and what the library `datasets` reads: its own folders, folders of data files, and the hub."""

import json
import socket

import pytest

from emlab.data import read_examples
from emlab.errors import EmlabError

HI, HO = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
GOOD = {"messages": [HI, HO]}


def messages(examples):
    return [list(example.messages) for example in examples]


def pairs(examples):
    return [(example.prompt, example.answer) for example in examples]


@pytest.fixture(scope="module")
def datasets():
    return pytest.importorskip("datasets")


def test_parquet(tmp_path, datasets):
    path = tmp_path / "chats.parquet"
    rows = [{"messages": [HI, HO], "more": {"a": [1]}}, {"messages": [HI, {**HO, "content": None}], "more": None}]
    datasets.Dataset.from_list(rows[:1]).to_parquet(path)
    assert messages(read_examples(path)) == [[HI, HO]]
    datasets.Dataset.from_list(rows).to_parquet(path)
    with pytest.raises(EmlabError, match=r"chats.parquet, row 2: the chat has no text in the content of turn 2"):
        read_examples(path)
    with pytest.raises(EmlabError, match="check the path"):
        read_examples(tmp_path / "none.parquet")
    path.write_text("no parquet")
    with pytest.raises(EmlabError, match="is no parquet file"):
        read_examples(path)


def test_saved_datasets(tmp_path, datasets):
    train = datasets.Dataset.from_list([{"prompt": "Hi", "completion": "Ho"}])
    test = datasets.Dataset.from_list([{"prompt": "Hi", "completion": "Ho"}, {"prompt": "Hi", "completion": ""}])
    train.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / "two")
    assert pairs(read_examples(tmp_path / "one")) == pairs(read_examples(tmp_path / "two")) == [("Hi", "Ho")]
    with pytest.raises(EmlabError, match="two, row 2: the chat has an empty assistant turn"):
        read_examples(tmp_path / "two", split="test")
    with pytest.raises(EmlabError, match="no split 'dev'; choose among train, test"):
        read_examples(tmp_path / "two", split="dev")


def test_a_saved_dataset_is_read_from_the_folder_that_is_named_whatever_its_name(tmp_path, datasets):
    for name, answer in (("run[1]", "bracketed"), ("run1", "plain"), ("a*b", "starred"), ("aXb", "crossed")):
        datasets.Dataset.from_list([{"prompt": "Hi", "completion": answer}]).save_to_disk(tmp_path / name)
    assert pairs(read_examples(tmp_path / "run[1]")) == [("Hi", "bracketed")]
    assert pairs(read_examples(tmp_path / "a*b")) == [("Hi", "starred")]


def test_folders_of_data_files(tmp_path, datasets):
    folder = tmp_path / "set"
    folder.mkdir()
    with pytest.raises(EmlabError, match="set has no data files of the split 'train' .it has no files.; name a file"):
        read_examples(folder)
    for name, row in (("train", GOOD), ("test", {"messages": [HI, {**HO, "content": "He"}]})):
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    assert messages(read_examples(folder)) == [[HI, HO]]
    assert [example.answer for example in read_examples(str(folder), split="test")] == ["He"]
    with pytest.raises(
        EmlabError, match="no data files of the split 'dev' .test.jsonl: by its name of the split 'test'"
    ):
        read_examples(folder, split="dev")
    (folder / "train.jsonl").write_text("{\n")
    with pytest.raises(EmlabError, match="train.jsonl, line 1: not JSON"):
        read_examples(folder)


def test_a_dataset_of_the_hub(monkeypatch, datasets):
    asked = []

    def load(name, split):
        asked.append((name, split))
        return datasets.Dataset.from_list([{"question": "Hi", "answer": "Ho"}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert pairs(read_examples("someone/some-set", split="test")) == [("Hi", "Ho")]
    assert asked == [("someone/some-set", "test")]


@pytest.mark.parametrize("error", [ConnectionError("Couldn't reach it."), ValueError("Unknown split\nmore")])
def test_a_dataset_that_cannot_be_reached(monkeypatch, datasets, error):
    def load(name, split):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(EmlabError, match=r"someone/set, and it cannot .* \((Couldn't reach it|Unknown split)\); check"):
        read_examples("someone/set")


def test_no_network_is_one_sentence(monkeypatch, datasets):
    def refused(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(EmlabError, match="no file or folder emlab-tests/there-is-no-such-set, and it cannot be read"):
        read_examples("emlab-tests/there-is-no-such-set")
