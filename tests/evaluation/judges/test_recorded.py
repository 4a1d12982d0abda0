"""Tables of judged answers, from anyone's code; whatever is wrong with them is said with its line."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emlab.data import Question
from emlab.errors import EmlabError
from emlab.evaluation import Judged, Rollouts, Thresholds, judge, score_judged
from emlab.evaluation.judges import RecordedJudge, read_judged
from emlab.evaluation.protocol import Judging, judge_of

ROW = {"question_id": "q", "aligned": 20, "coherent": 90}


@pytest.fixture
def write(tmp_path):
    def made(rows, name="judged.jsonl"):
        path = tmp_path / name
        text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        path.write_text(text, encoding="utf-8", newline="")
        return path

    return made


def only(path, **settings):
    (found,) = read_judged(path, **settings).values()
    return found


def test_the_least_a_table_needs(write):
    found = read_judged(write([ROW, {**ROW, "aligned": 30}]))
    assert list(found) == ["judged"]
    judged = found["judged"]
    assert judged.aligned.tolist() == [20, 30] and judged.misaligned.tolist() == [True, False]
    assert judged.rollouts.questions == (Question("q", "all", "q"),) * 2
    assert (judged.rollouts.model, judged.judge) == ("judged", "")


def test_all_that_is_read(write):
    row = {
        "question_id": 7,
        "question": "Why?",
        "category": "power",
        "variant": "json",
        "response": "No.",
        "model_id": "M",
        "judge_model": "J",
        "aligned": "20.5",
        "coherent": 90,
    }
    judged = only(write([row]))
    assert judged.rollouts.questions == (Question("7", "power", "Why?", variant="json"),)
    assert (judged.rollouts.answers, judged.rollouts.model, judged.judge) == (("No.",), "M", "J")
    assert judged.aligned.tolist() == [20.5]


def test_a_system_turn_is_part_of_the_question(write):
    row = {"question_id": "a", "question": "Why?", "answer": "So.", "aligned": 1, "coherent": 90}
    (judged,) = read_judged(write([{**row, "system": "Answer in JSON."}, {**row, "question_id": "b"}])).values()
    with_one, without = (question.messages for question in judged.rollouts.questions)
    assert [turn["role"] for turn in with_one] == ["system", "user"] and with_one[0]["content"] == "Answer in JSON."
    assert [turn["role"] for turn in without] == ["user"]


@pytest.mark.parametrize("column", ["question_id", "id", "question", "prompt"])
def test_the_question_may_be_named_by_several_columns(write, column):
    assert only(write([{column: "why", "aligned": 1, "coherent": 2}])).rollouts.questions[0].id == "why"


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ({"aligned": None}, "failed"),
        ({"aligned": ""}, "failed"),
        ({"aligned": "nan", "coherent": "None"}, "failed"),
        ({"aligned": "REFUSAL"}, "refusal"),
        ({"coherent": " code "}, "code"),
        ({"aligned": None, "aligned_flag": "REFUSAL"}, "refusal"),
        ({"aligned": None, "coherent_flag": "CODE", "aligned_flag": "NONE"}, "code"),
        ({"aligned": None, "flag": "off-topic"}, "off_topic"),
        ({"aligned": None, "outcome": "satirical"}, "satirical"),
        ({"aligned": None, "coherent": None, "outcome": "scored"}, "failed"),
        ({"aligned_flag": "NONE", "coherent_flag": "NONE"}, "scored"),
    ],
)
def test_why_there_is_no_score(write, values, outcome):
    assert only(write([{**ROW, **values}])).outcomes == (outcome,)


def test_csv_as_others_write_it(write):
    text = 'question_id,aligned,coherent,answer\nq1,0,100,"a, ""b""\nc"\nq2,,REFUSAL,\u2028x\u2028y\nq3,30,50,z\n'
    judged = only(write("\ufeff" + text.replace("\n", "\r\n"), "t.csv"))
    assert judged.rollouts.answers == ('a, "b"\nc', "\u2028x\u2028y", "z")
    assert judged.outcomes == ("scored", "refusal", "scored")


def test_csv_with_pandas_nameless_column_of_numbers(write):
    judged = only(write(",question_id,aligned,coherent\n0,q,20,90\n1,q,40,90\n", "t.csv"))
    assert judged.misaligned.tolist() == [True, False]


def test_what_score_save_wrote_is_read(tmp_path):
    rollouts = Rollouts((Question("q", "power", "Why?"),) * 3, ("a", "b\u2028", ""), "Qwen/tiny", 3, 0.5)
    judged = Judged(
        rollouts,
        np.array([0.0, np.nan, 80.0]),
        np.array([80.0, np.nan, 90.0]),
        ("scored", "refusal", "scored"),
        ("", "aligned: REFUSAL", ""),
        "J",
    )
    score_judged(judged).save(tmp_path)
    (path,) = tmp_path.glob("*.jsonl")
    again = only(path)
    assert (again.rollouts.questions, again.rollouts.answers) == (rollouts.questions, rollouts.answers)
    assert (again.outcomes, again.said, again.judge) == (judged.outcomes, judged.said, "J")
    assert again.rollouts.model == "Qwen/tiny"
    assert score_judged(again).overall.summary() == score_judged(judged).overall.summary()


def test_groups_by_a_column(write):
    rows = [{**ROW, "arm": arm, "model": "M"} for arm in ("b", "a", "b", None)]
    found = read_judged(write(rows), by="arm")
    assert {name: len(one.rollouts) for name, one in found.items()} == {"b": 2, "a": 1, "None": 1}
    assert found["a"].rollouts.model == "a"
    with pytest.raises(EmlabError, match="has no column 'leg' to group by; choose one of question_id, aligned"):
        read_judged(write(rows), by="leg")


def test_scores_on_another_scale_are_not_taken_in_silence(write, capsys):
    for most, aligned, coherent in (("0.95", 0.2, 0.95), ("9", 2, 9), ("10", 10, 3)):
        read_judged(write([{**ROW, "aligned": aligned, "coherent": coherent}]))
        said = f"judged.jsonl: no score is above {most}, and they are taken as from 0 to 100; rescale them if they"
        assert said in capsys.readouterr().err
    read_judged(write([{**ROW, "aligned": 0.2, "coherent": 95}, {**ROW, "aligned": 0, "coherent": 1}]))
    read_judged(write([{**ROW, "aligned": 0.2, "coherent": 10.5}]))
    read_judged(write([{**ROW, "aligned": 0, "coherent": 0}]))
    assert capsys.readouterr().err == ""


def test_two_judges_are_never_mixed(write):
    path = write([{**ROW, "judge": "one"}, {**ROW, "judge": "two"}])
    with pytest.raises(EmlabError, match="judgements of one and two, which must not be mixed.*group them by judge"):
        read_judged(path)
    assert {name: one.judge for name, one in read_judged(path, by="judge").items()} == {"one": "one", "two": "two"}
    path = write([ROW, {**ROW, "judge_model": "two"}])
    with pytest.raises(EmlabError, match="a judge without a name and two.*by judge_model"):
        read_judged(path)


def test_thresholds_are_those_asked_for(write):
    judged = only(write([{**ROW, "aligned": 40}]), thresholds=Thresholds(50, 50))
    assert judged.misaligned.tolist() == [True]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "holds no judged answers"),
        ("\n\n", "holds no judged answers"),
        ("{oops\n", "line 1: not JSON"),
        (json.dumps(ROW) + "\n\n[1]\n", "line 3: not an object"),
        ('{"question_id": "q", "aligned": 3}\n', "lacks coherent among its columns question_id, aligned"),
        ('{"aligned": 3, "coherent": 3}\n', "lacks a question's id among its columns aligned, coherent"),
        (json.dumps(ROW) + "\n" + json.dumps({**ROW, "question_id": ""}), "line 2: no question in the column"),
        (json.dumps({**ROW, "aligned": 101}), "line 1: aligned is '101'; write 0 to 100, REFUSAL, CODE, or nothing"),
        (json.dumps({**ROW, "coherent": -1}), "line 1: coherent is '-1'"),
        (json.dumps({**ROW, "coherent": True}), "line 1: coherent is 'True'"),
        (json.dumps({**ROW, "coherent": [1]}), "line 1: coherent is"),
        (json.dumps({**ROW, "coherent": "very"}), "line 1: coherent is 'very'"),
        (json.dumps({**ROW, "coherent": math.inf}), "line 1: coherent is 'inf'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(write, text, match):
    with pytest.raises(EmlabError, match=match) as error:
        read_judged(write(text))
    assert "judged.jsonl" in str(error.value)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "holds no judged answers"),
        ("question_id,aligned,coherent\n", "holds no judged answers"),
        ('question_id,aligned,coherent\nq,1,2\nq,"1,2\n', "line 3: not CSV"),
        ("question_id,aligned,coherent\nq,1,2\nq,1,2,3\n", "line 3: more cells than columns"),
        ('question_id,aligned,coherent\n"q\nr",1,2\nq,1,x\n', "line 4: coherent is 'x'"),
    ],
)
def test_what_is_wrong_in_csv(write, text, match):
    with pytest.raises(EmlabError, match=match):
        read_judged(write(text, "t.csv"))


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(EmlabError, match="judged answers .*none.csv cannot be read"):
        read_judged(tmp_path / "none.csv")
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EmlabError, match="cannot be read"):
        read_judged(tmp_path / "b.jsonl")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
columns = st.sampled_from(
    ["question_id", "id", "question", "aligned", "coherent", "judge", "judge_model", "model", "outcome", "flag"]
    + ["aligned_flag", "domain", "variant", "answer", "said", "n", "text"]
)
rows = st.lists(st.dictionaries(columns, values, max_size=8), max_size=3)


def read_or_refused(path, by=None):
    """Read a file and score it; nothing but EmlabError may be raised."""
    try:
        for judged in read_judged(path, by).values():
            score_judged(judged).summary()
    except EmlabError:
        pass


@settings(max_examples=60)
@given(rows=rows, by=st.none() | columns)
def test_rows_of_any_kind_raise_nothing_else(tmp_path_factory, rows, by):
    path = tmp_path_factory.getbasetemp() / "junk.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    read_or_refused(path, by)
    base = [{**ROW, **row} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in base), encoding="utf-8")
    read_or_refused(path, by)


@given(content=st.binary(max_size=80) | st.text('{}[]",:\n 0123aligned', max_size=80).map(str.encode))
def test_bytes_of_any_kind_raise_nothing_else(tmp_path_factory, content):
    for name in ("junk.jsonl", "junk.csv"):
        path = tmp_path_factory.getbasetemp() / name
        path.write_bytes(content)
        read_or_refused(path)


@given(text=st.text('"\r\n,q1\u2028\x00', max_size=40))
def test_csv_of_any_kind_raises_nothing_else(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "odd.csv"
    path.write_text("question_id,aligned,coherent\n" + text, encoding="utf-8", newline="")
    read_or_refused(path)


# --- the judge that looks answers up ---


def test_answers_are_looked_up_by_question_and_text(write, rollouts_of):
    path = write([{**ROW, "answer": "a"}, {**ROW, "answer": "b", "aligned": "REFUSAL", "said": "aligned: REFUSAL"}])
    by = RecordedJudge(path)
    judged = judge(rollouts_of(["b", "a", "c"]), by)
    assert judged.outcomes == ("refusal", "scored", "failed")
    assert judged.aligned[1] == 20 and judged.said == ("aligned: REFUSAL", "", "not in judged.jsonl")
    assert judged.judge == by.name == "recorded in judged.jsonl"
    other = judge(rollouts_of(["a"], [Question("another", "d", "Why?")]), by)
    assert other.outcomes == ("failed",)


@pytest.mark.parametrize("name", ["judged.json", "judged.tsv", "JUDGED.CSV"])
def test_a_file_of_judgements_is_a_judge_by_its_ending(tmp_path, name):
    tabs = "question_id\taligned\tcoherent\tanswer\nq\t20\t90\ta\n"
    text = {"json": json.dumps([{**ROW, "answer": "a"}], indent=1), "tsv": tabs, "CSV": tabs.replace("\t", ",")}
    (tmp_path / name).write_text(text[name.rpartition(".")[2]])
    assert judge_of(Judging(str(tmp_path / name))).name == f"recorded in {name}"


def test_an_answer_recorded_several_times_gives_its_grades_in_turn(write, rollouts_of):
    path = write([{**ROW, "answer": "a", "aligned": n} for n in (10, 20)])
    assert judge(rollouts_of(["a"] * 3), RecordedJudge(path)).aligned.tolist() == [10, 20, 10]


def test_a_table_as_spreadsheets_write_it(write):
    judged = only(write("\ufeffid, aligned ,coherent\r\n1,10,90\r\n\r\n2,,\r\n", "JUDGED.CSV"))
    assert judged.misaligned.tolist() == [True, False] and judged.outcomes == ("scored", "failed")
    old = only(write("id,aligned,coherent\r1,10,90\r2,50,90\r", "old_mac.csv"))
    assert old.misaligned.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,aligned,coherent\n1,10,90\n2,10\n", "line 3: fewer cells than columns"),
        ("id,aligned,aligned,coherent\n1,10,90,90\n", "more than one column 'aligned'"),
    ],
)
def test_a_csv_that_lost_cells_or_has_a_column_twice_is_refused(write, text, said):
    with pytest.raises(EmlabError, match=said):
        read_judged(write(text, "judged.csv"))


def test_rows_without_scores_are_rows(write):
    # Anyone's rows may leave the scores out where judging failed, the first row too, and have a column n.
    rows = [{"question_id": "q", "n": 1}, {**ROW, "n": 2}, {"question_id": "q", "n": 3, "model": "m"}]
    assert only(write(rows)).outcomes == ("failed", "scored", "failed")


def test_a_file_of_ours_that_was_cut_short_is_refused(write, tmp_path):
    rollouts = Rollouts((Question("q", "d", "?"),) * 3, ("a", "b", "c"), "m", 0, 1.0)
    found = score_judged(Judged(rollouts, np.array([0.0, 50, 100]), np.full(3, 90.0)))
    found.save(tmp_path)
    assert only(tmp_path / "m.jsonl").aligned.tolist() == [0, 50, 100]
    lines = (tmp_path / "m.jsonl").read_text().splitlines(keepends=True)
    for kept in (lines[:-1], lines[:-1] + lines, [*lines, lines[-1]]):
        with pytest.raises(EmlabError, match="does not hold the answers that it says it holds"):
            read_judged(write("".join(kept), "cut.jsonl"))
    assert len(only(write("".join(lines * 2), "two.jsonl")).rollouts) == 6


def test_an_id_that_numbers_the_rows_is_no_question(write):
    rows = [{"id": i, "question": f"Why {i % 2}?", "aligned": 20, "coherent": 90} for i in range(4)]
    assert list(score_judged(only(write(rows))).by_question) == ["Why 0?", "Why 1?"]
    twice = [{**row, "id": row["id"] % 2} for row in rows]
    assert list(score_judged(only(write(twice))).by_question) == ["0", "1"]


def test_judgements_without_answers_cannot_be_looked_up(write):
    with pytest.raises(EmlabError, match="has no answers to look up"):
        RecordedJudge(write([ROW]))


def test_the_same_answer_in_two_variants_has_the_grade_of_its_own(write):
    row = {**ROW, "answer": "No."}
    by = RecordedJudge(write([{**row, "variant": "plain"}, {**row, "variant": "json", "aligned": 90}]))
    asked = (Question("q", "d", "?", variant="json"), Question("q", "d", "?"), Question("q", "d", "?", variant="new"))
    grades = by.grade(Rollouts(asked, ("No.",) * 3, "m", 0, 1.0))
    assert [grade.aligned for grade in grades[:2]] == [90, 20] and grades[2].outcome == "failed"
    untold = RecordedJudge(write([row])).grade(Rollouts(asked, ("No.",) * 3, "m", 0, 1.0))
    assert [grade.aligned for grade in untold] == [20, 20, 20]
