"""Files of judged answers in the forms in which others write them: the same rows, so the same figures."""

import csv
import json

import pytest

from emlab.errors import EmlabError
from emlab.evaluation import clustered_rate, score_judged
from emlab.evaluation.judges import read_judged

ROWS = [
    {"question_id": f"q{i // 2}", "answer": f"a{i}, so", "aligned": 20 * i, "coherent": 90, "judge": "J"}
    for i in range(6)
]


def figures(path):
    (judged,) = read_judged(path).values()
    return score_judged(judged).summary() | {"model": ""}


@pytest.fixture
def expected(tmp_path):
    (tmp_path / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return figures(tmp_path / "plain.jsonl")


def delimited(delimiter):
    def write(path):
        with open(path, "w", newline="") as file:
            table = csv.DictWriter(file, ROWS[0], delimiter=delimiter)
            table.writeheader()
            table.writerows(ROWS)

    return write


def parquet(path):
    import pandas

    pandas.DataFrame(ROWS).to_parquet(path)


def as_json(value, **how):
    return lambda path: path.write_text(json.dumps(value, **how))


SHARED = [{"question_id": f"q{q}", "judge": "J", "aligned": 1} for q in range(3)]
BARE = [{name: row[name] for name in ("answer", "aligned", "coherent")} for row in ROWS]
NESTED = [{**one, "answers": BARE[2 * q : 2 * q + 2]} for q, one in enumerate(SHARED)]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("list.json", as_json(ROWS, indent=2)),
        ("line.json", as_json(ROWS)),
        ("indented.jsonl", as_json(ROWS, indent=1)),
        ("held.json", as_json({"judge": "J", "n": 3, "anything": ROWS}, indent=2)),
        ("held_with_a_name.json", as_json({"id": "run 1", "prompt": "Judge it.", "judge": "J", "results": ROWS})),
        ("held_with_names.jsonl", as_json({"id": "run 1", "model": "M", "judge": "J", "rollouts": ROWS})),
        ("held_in_a_line.json", as_json({"about": {"x": 1}, "rows": ROWS})),
        ("lines.json", lambda path: path.write_text("\n".join(map(json.dumps, ROWS)))),
        ("nested.json", as_json(NESTED, indent=2)),
        ("nested.jsonl", lambda path: path.write_text("\n".join(map(json.dumps, NESTED)))),
        ("held_and_nested.json", as_json({"results": NESTED}, indent=2)),
        *(
            (f"{key}.json", as_json([{**o, key: o["answers"]} | {"answers": None} for o in NESTED]))
            for key in ("results", "rollouts", "details")
        ),
        ("one_each.json", as_json([{"question_id": row["question_id"], "judge": "J", "details": row} for row in ROWS])),
        ("t.csv", delimited(",")),
        ("t.tsv", delimited("\t")),
        ("t.TSV", delimited("\t")),
        ("t.parquet", parquet),
    ],
)
def test_every_form_gives_the_same_figures(tmp_path, expected, name, write):
    write(tmp_path / name)
    assert figures(tmp_path / name) == expected


def test_an_answers_own_number_is_not_the_questions(tmp_path):
    # Two questions, one all misaligned and one not at all, whose answers are numbered from 0 under each.
    rows = [
        {"id": q, "question": f"{q}?", "answers": [{"id": i, "aligned": a, "coherent": 90} for i in range(4)]}
        for q, a in (("x", 0), ("y", 100))
    ]
    as_json(rows)(tmp_path / "a.json")
    (judged,) = read_judged(tmp_path / "a.json").values()
    rate = score_judged(judged).misaligned
    assert rate == clustered_rate([4, 0], [4, 4])
    assert [question.id for question in judged.rollouts.questions] == ["x"] * 4 + ["y"] * 4


def test_a_long_cell_is_read_and_the_limit_stays_as_it_was(tmp_path):
    before = csv.field_size_limit()
    (tmp_path / "t.csv").write_text(f"question_id,answer,aligned,coherent\nq,{'x' * 200_000},10,90\n")
    (judged,) = read_judged(tmp_path / "t.csv").values()
    assert len(judged.rollouts.answers[0]) == 200_000 and csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.xlsx", b"PK\x03\x04", "is an Excel sheet, and emlab reads JSONL, JSON, CSV, TSV and parquet"),
        ("a.jsonl.gz", b"\x1f\x8b\x08", "is compressed, and emlab reads"),
        ("a.csv", b"id,aligned\n\xff,1", "byte 11 is not UTF-8 text"),
        ("a.parquet", b"PAR1", "no parquet file that can be read"),
        ("a.json", b'[{"id": 1},\n {]', "a.json, line 2: not JSON"),
        ("a.json", b'{"a": [{"x": 1}], "b": [{"x": 1}]}', r"holds rows under several keys \(a, b\)"),
        ("a.json", b"[1]", "row 1: not an object"),
        (
            "a.json",
            b'[{"id": 1, "answers": [{}], "results": [{}]}]',
            "row 1: rows stand under answers and under results",
        ),
        ("a.json", b'{"mean": 3}', "lacks aligned and coherent and a question's id"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EmlabError, match=said):
        read_judged(tmp_path / name)


# --- folders that an evaluation wrote ---


def test_the_folder_that_an_evaluation_wrote_is_read(tmp_path, expected):
    score_judged(*read_judged(tmp_path / "plain.jsonl").values()).save(tmp_path / "run" / "evaluate" / "insecure")
    (tmp_path / "run" / "evaluate" / "insecure" / "m.rollouts.jsonl").write_text("{}\n")
    for folder in (tmp_path / "run" / "evaluate" / "insecure", tmp_path / "run"):
        assert figures(folder) == expected
    score_judged(*read_judged(tmp_path / "plain.jsonl").values()).save(tmp_path / "run" / "evaluate" / "secure")
    said = r"several files of judged answers \(evaluate/insecure/plain.jsonl, evaluate/secure/plain.jsonl\); name one"
    with pytest.raises(EmlabError, match=said):
        read_judged(tmp_path / "run")


def test_a_folder_without_judgements_says_what_it_holds(tmp_path):
    with pytest.raises(EmlabError, match="is a folder without judged answers"):
        read_judged(tmp_path)
    (tmp_path / "m.rollouts.jsonl").write_text("{}\n")
    with pytest.raises(EmlabError, match=r"holds answers that are not judged \(m.rollouts.jsonl\); judge them"):
        read_judged(tmp_path)
