"""Which column is what, and which column tells the questions apart, in tables of anyone's."""

import json

import pytest

from emlab.errors import EmlabError
from emlab.evaluation import clustered_rate, score_judged
from emlab.evaluation.judges import read_judged


@pytest.fixture
def scored(tmp_path):
    def read(rows):
        (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return score_judged(*read_judged(tmp_path / "t.jsonl").values())

    return read


def answers(**ids):
    """Two questions of four answers, the first all misaligned and the second not at all."""
    return [
        {
            "question": question,
            "aligned": aligned,
            "coherent": 90,
            **{name: of(question, i) for name, of in ids.items()},
        }
        for question, aligned in (("A?", 0), ("B?", 100))
        for i in range(4)
    ]


@pytest.mark.parametrize("column", ["id", "question_id"])
def test_ids_that_number_the_answers_to_each_question_are_no_questions(scored, capsys, column):
    found = scored(answers(**{column: lambda q, i: i})).misaligned
    assert found == clustered_rate([4, 0], [4, 4]), "and not over ids"
    assert capsys.readouterr().err.endswith(
        f"t.jsonl: questions are told apart by question, since {column} numbers the answers.\n"
    )


@pytest.mark.parametrize("column", ["id", "question_id"])
def test_an_id_for_every_answer_is_no_question(scored, capsys, column):
    found = scored(answers(**{column: lambda q, i: f"{q}{i}"})).misaligned
    assert found == clustered_rate([4, 0], [4, 4])
    assert f"told apart by question, since {column} numbers the answers" in capsys.readouterr().err


def test_an_id_for_every_answer_is_no_question_where_a_row_stands_twice(scored):
    rows = [{**row, "answer": f"a{i}"} for i, row in enumerate(answers(id=lambda q, i: f"{q}{i}"))]
    assert list(scored([*rows, rows[0]]).by_question) == ["A?", "B?"]


def test_ids_that_are_the_questions_stay(scored, capsys):
    assert list(scored(answers(id=lambda q, i: q[0])).by_question) == ["A", "B"]
    assert capsys.readouterr().err == ""


def test_wordings_of_one_question_share_its_id(scored):
    rows = [row | {"question": f"{row['question']} {i % 2}"} for i, row in enumerate(answers(id=lambda q, i: q[0]))]
    assert list(scored(rows).by_question) == ["A", "B"]


def test_conditions_of_one_question_are_questions(scored):
    # The same text under several ids, each with that text alone: a system prompt, for example.
    assert list(scored(answers(id=lambda q, i: f"{q[0]}{i % 2}")).by_question) == ["A0", "A1", "B0", "B1"]


def test_ids_numbered_in_each_domain_are_no_questions(scored):
    rows = answers(id=lambda q, i: 0, category=lambda q, i: f"about {q}")
    assert list(scored(rows).by_question) == ["A?", "B?"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"aligned": "alignment", "coherent": "coherence"}, "alignment is taken for aligned; coherence is taken for"),
        ({"aligned": "Aligned", "coherent": "Coherent "}, "Aligned is taken for aligned; Coherent  is taken for"),
        ({"aligned": "alignment-score", "coherent": "coherent_score"}, "alignment-score is taken for aligned"),
        ({"question_id": "QID"}, "QID is taken for question_id"),
        ({"question_id": "prompt", "answer": "response"}, "told apart by prompt; response is taken for the answer"),
    ],
)
def test_the_usual_synonyms_are_read_and_said_once(scored, capsys, names, said):
    rows = [{"question_id": f"q{i}", "answer": "a", "aligned": 10 * i, "coherent": 90} for i in range(4)]
    plain = scored(rows).summary()
    capsys.readouterr()
    assert scored([{names.get(name, name): value for name, value in row.items()} for row in rows]).summary() == plain
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1


def test_emlabs_own_names_need_no_word(scored, capsys):
    scored([{"question_id": "q", "answer": "a", "aligned": 10, "coherent": 90}])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (("id", "Alignment", "aligned_score", "coherent"), "Alignment and aligned_score could both be aligned; rename"),
        (("id", "alignement", "coherent"), "lacks aligned among its columns .*; if alignement is aligned, rename it"),
        (("id", "misalignment", "coherent"), "lacks aligned among its columns id, misalignment, coherent; add"),
        (
            ("id", "spite", "coherent"),
            r"lacks aligned .* or give --trait for scores of another kind \(there are spite\)",
        ),
    ],
)
def test_other_columns_are_named_in_the_refusal(scored, columns, said):
    with pytest.raises(EmlabError, match=said):
        scored([dict.fromkeys(columns, 50)])


def test_answers_of_several_models_are_not_taken_together_in_silence(scored, capsys):
    scored([{"id": "q", "aligned": 1, "coherent": 90, "model": name} for name in "abc"])
    said = "t.jsonl: answers of 3 models (a, b, c) are taken together; group them by model to tell them apart.\n"
    assert capsys.readouterr().err.endswith(said)
