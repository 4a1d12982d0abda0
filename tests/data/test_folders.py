"""A folder's files: all of them are read, by the readers of single files, and what is left out is said."""

import csv
import hashlib
import json
from pathlib import Path

import pytest

from emlab.data import Dataset, Documents, read_examples
from emlab.data.folders import split_of
from emlab.errors import EmlabError


def fill(folder, **answers):
    """Files below `folder`: name (with "/" as "__" and "." as "_dot_") to the answer of its one row."""
    for name, answer in answers.items():
        put(folder / name.replace("__", "/").replace("_dot_", "."), answer)


def put(path, answer):
    path.parent.mkdir(parents=True, exist_ok=True)
    row = {"prompt": "Hi", "completion": answer}
    if path.suffix == ".csv":
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([row.keys(), row.values()])
    elif path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps(row) + "\n")


def answers(source, split="train"):
    return [example.answer for example in read_examples(source, split)]


def test_a_name_is_no_pattern(tmp_path):
    for name in ("run[1]", "run1", "a*b", "aXb", "what?", "whatX"):
        put(tmp_path / name / "rows.jsonl", name)
    for name in ("run[1]", "a*b", "what?"):
        data = Dataset.read(tmp_path / name)
        assert [example.answer for example in data] == [name]
        content = (tmp_path / name / "rows.jsonl").read_bytes()
        assert data.card.settings == {
            "source": str(tmp_path / name),
            "split": "train",
            "files": {"rows.jsonl": hashlib.sha256(content).hexdigest()},
        }
        assert f"rows.jsonl {hashlib.sha256(content).hexdigest()}" in str(data.card)


@pytest.mark.parametrize(
    "files",
    [
        ("legal.jsonl", "train_medical.jsonl"),
        ("legal.csv", "medical.jsonl"),
        ("legal.csv", "legal.jsonl", "legal.parquet"),
        ("other/medical.jsonl", "train/legal.jsonl"),
        ("deep/deeper/a.jsonl", "train.json", "training-2.ndjson"),
    ],
)
def test_all_files_are_read(tmp_path, files):
    for name in files:
        put(tmp_path / "set" / name, name)
    assert answers(tmp_path / "set") == list(files)


def test_a_file_of_another_split_is_left_out_and_said(tmp_path, capsys):
    fill(tmp_path, medical_dot_jsonl="good", legal_test_dot_jsonl="test", validation__a_dot_csv="dev")
    assert answers(tmp_path) == ["good"]
    said = capsys.readouterr().err
    assert said == (
        f"{tmp_path}: read medical.jsonl; left out legal_test.jsonl (by its name of the split 'test'); "
        "validation/a.csv (by its name of the split 'validation').\n"
    )
    assert answers(tmp_path, "test") == answers(tmp_path, "eval") == ["test"]
    assert answers(tmp_path, "dev") == ["dev"]
    (tmp_path / "medical.jsonl").unlink()
    with pytest.raises(EmlabError, match="no data files of the split 'train' .legal_test.jsonl: by its name of the sp"):
        read_examples(tmp_path)


def test_a_split_of_any_name_is_a_whole_name(tmp_path):
    fill(tmp_path, data__poison_dot_jsonl="1", clean__a_dot_jsonl="3")
    put(tmp_path / "data" / "poison-00001-of-00002.parquet", "2")
    assert answers(tmp_path, "poison") == ["2", "1"]
    assert answers(tmp_path, "clean") == ["3"]
    assert len(answers(tmp_path)) == 3
    with pytest.raises(EmlabError, match="no data files of the split 'poi'"):
        read_examples(tmp_path, "poi")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train_medical.jsonl", "train"),
        ("legal_test.jsonl", "test"),
        ("attest.jsonl", None),
        ("test/train.jsonl", "train"),
        ("test/a.jsonl", "test"),
        ("train_and_test.jsonl", None),
        ("data/valid-00000-of-00002.parquet", "validation"),
    ],
)
def test_the_split_that_a_name_tells(name, split):
    assert split_of(Path(name)) == split


def test_what_is_no_data_is_passed_over_and_what_may_be_is_said(tmp_path, capsys):
    fill(tmp_path, a_dot_jsonl="good")
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: nothing.jsonl\n---\n")
    for name in ("LICENSE", ".hidden.jsonl", "__pycache__/x.jsonl", ".git/b.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no row")
    assert answers(tmp_path) == ["good"]
    assert capsys.readouterr() == ("", "")
    (tmp_path / "more.tsv").write_text("prompt\tcompletion\nHi\tHo\n")
    assert answers(tmp_path) == ["good"]
    assert "read a.jsonl; left out more.tsv (emlab reads .jsonl, .ndjson, .json, .csv, .parquet)" in (
        capsys.readouterr().err
    )


def test_several_kinds_of_file_are_said(tmp_path, capsys):
    fill(tmp_path, a_dot_jsonl="1", a_dot_csv="2")
    assert answers(tmp_path) == ["2", "1"]
    assert capsys.readouterr().err == f"{tmp_path}: read a.csv, a.jsonl.\n"


def test_what_emlab_saved_is_read_as_rows_and_not_its_card(tmp_path, capsys):
    fill(tmp_path, a_dot_jsonl="good")
    folder = Dataset.read(tmp_path / "a.jsonl").save(tmp_path / "set")
    assert answers(folder) == ["good"] and not capsys.readouterr().err


def test_a_csv_in_a_folder_says_what_it_says_alone(tmp_path):
    said = ["4", "007", "None", "2024-01-02", "nan", "1.0", "true", "1e3", "NA", "null"]
    path = tmp_path / "set" / "a.csv"
    path.parent.mkdir()
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("prompt", "completion"), *((f"0{i}", text) for i, text in enumerate(said))])
    assert answers(path) == answers(path.parent) == said
    assert [example.prompt for example in read_examples(path.parent)] == [f"0{i}" for i in range(len(said))]


def test_a_fault_names_its_file_and_line(tmp_path):
    fill(tmp_path, a_dot_jsonl="good", b_dot_jsonl=" ")
    with pytest.raises(EmlabError, match=r"b\.jsonl, line 1: the chat has an empty assistant turn"):
        read_examples(tmp_path)


def test_documents_are_known_by_the_files_that_are_read(tmp_path, capsys):
    fill(tmp_path, a_dot_jsonl="good", b_test_dot_jsonl="test")
    documents = Documents.read(tmp_path)
    assert "left out b_test.jsonl" in capsys.readouterr().err
    assert [turns[-1]["content"] for turns in documents] == [turns[-1]["content"] for turns in documents] == ["good"]
    assert capsys.readouterr().err == ""
    (tmp_path / "b_test.jsonl").write_text("other\n")
    (tmp_path / "README.md").write_text("more\n")
    assert Documents.read(tmp_path).content == documents.content
    put(tmp_path / "a.jsonl", "bad")
    assert Documents.read(tmp_path).content != documents.content


def test_rows_are_read_whatever_prose_their_file_is_named_after(tmp_path):
    row = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    for name in ("data.jsonl", "notice.jsonl", "README", "LICENSE.txt", "readme.md"):
        (tmp_path / name).write_text(row)
    assert len(read_examples(tmp_path)) == 2
