"""Which answers have gold labels: matched by ids or by what was asked and said; what does not fit is told."""

import json

import numpy as np
import pytest

from emlab.data import Question
from emlab.errors import EmlabError
from emlab.evaluation import Judged, Rollouts
from emlab.evaluation.gold_labels import Sheet, match


def row(question, answer, aligned=90, coherent=90, **more):
    return {"question_id": question, "answer": answer, "aligned": aligned, "coherent": coherent, **more}


CHEAP = [row("q1", "a"), row("q1", "b"), row("q2", "a"), row("q2", "c"), row("q2", "c")]


def matched(cheap, gold):
    found = match(Sheet.of(cheap, "CHEAP"), Sheet.of(gold, "GOLD"))
    return list(zip(found.cheap.tolist(), found.gold.tolist(), strict=True)), found.notes


def test_by_question_and_text():
    pairs, notes = matched(CHEAP, [row("q2", "a", 0), row("q1", "a"), row("q2", "c")])
    assert pairs == [(2, 0), (0, 1), (3, 2)]
    assert notes[0] == "Gold labels were matched with answers by question, text."


def test_the_same_text_given_twice_is_two_answers_and_a_third_label_is_one_too_many():
    pairs, notes = matched(CHEAP, [row("q2", "c", 0), row("q2", "c", 0), row("q2", "c", 90)])
    assert pairs == [(3, 0), (4, 1)]
    assert notes[1:] == (
        "1 answer in CHEAP repeats another word for word and counts as a further sample, since no ids tell whether it "
        "is a copy.",
        "1 gold label is of an answer that has one already, and left out: the first counts.",
        "1 answer has gold labels that differ.",
    )


def test_copies_that_have_an_id_count_once():
    cheap = [{**each, "item_id": i} for i, each in enumerate(CHEAP)]
    sheet = Sheet.of([*cheap, *cheap[3:], dict(reversed(cheap[4].items()))], "CHEAP")
    assert len(sheet.judged.rollouts) == len(sheet.rows) == 5
    found = match(sheet, Sheet.of([cheap[4], cheap[4], cheap[0]], "GOLD"))
    assert (found.cheap.tolist(), found.gold.tolist()) == ([4, 0], [0, 1])
    assert found.notes == (
        "Gold labels were matched with answers by the column item_id.",
        "3 rows of CHEAP repeat others in full, their ids too, and count once.",
        "1 row of GOLD repeats another in full, its id too, and counts once.",
    )


def test_an_id_that_is_of_no_single_answer_tells_no_copies():
    cheap = [{**each, "model_id": "m"} for each in CHEAP]
    sheet = Sheet.of([*cheap, cheap[3], {**cheap[3], "model": "another"}], "CHEAP")
    assert (len(sheet.rows), sheet.copies, sheet.repeats()) == (7, 0, 2)  # samples of one text, of one model
    (said,) = [note for note in match(sheet, Sheet.of(cheap[:1], "GOLD")).notes if "word for word" in note]
    assert said.startswith("2 answers in CHEAP repeat others word for word and count as further samples, since no ids")
    again = [{**each, "item_id": i} for i, each in enumerate(CHEAP)]
    assert Sheet.of(again, "CHEAP").repeats() == 0  # two answers of one text have two ids
    assert len(Sheet.of([*again, {**again[0], "aligned": 0}], "CHEAP").rows) == 6  # one id, and two verdicts


def test_what_does_not_fit_is_counted():
    gold = [row("q1", "a"), row("q1", "z"), row("q3", "a"), row("q1", "b", None)]
    pairs, notes = matched(CHEAP[:4], gold)
    assert pairs == [(0, 0)]
    assert notes[1:] == (
        "1 gold label is without a verdict, and left out.",
        "2 gold labels are of answers that are not in CHEAP, and left out.",
    )


def test_a_refusal_is_a_gold_label():
    assert matched(CHEAP, [row("q1", "a", "REFUSAL", "REFUSAL")])[0] == [(0, 0)]


def test_models_variants_and_wordings_count_where_both_tell_them():
    cheap = [
        row("q1", "Yes.", model="one"),
        row("q1", "Yes.", model="two"),
        row("q1", "Yes.", model="two", variant="json"),
        row("q1", "Yes.", model="two", variant="json", paraphrase=2),
    ]
    gold = [
        row("q1", "Yes.", model="two"),
        row("q1", "Yes.", model="two", variant="json", paraphrase=2),
        row("q1", "Yes.", model="one"),
    ]
    pairs, notes = matched(cheap, gold)
    assert pairs == [(1, 0), (3, 1), (0, 2)] and "question, text, variant, wording, model" in notes[0]
    pairs, notes = matched(cheap[:2], [row("q1", "Yes.")])
    assert pairs == [(0, 0)] and "since GOLD does not name the models" in notes[0]


def test_by_a_column_of_ids_which_an_answer_of_no_text_needs():
    cheap = [row("q1", "", item_id=0), row("q1", "", item_id=1), row("q2", "", item_id=2)]
    pairs, notes = matched(cheap, [row("q2", "", item_id=2), row("q1", "", item_id=0)])
    assert pairs == [(2, 0), (0, 1)] and notes == ("Gold labels were matched with answers by the column item_id.",)


def test_numbers_of_rows_that_begin_anew_in_each_file_are_no_ids():
    cheap = [{**each, "index": i} for i, each in enumerate(CHEAP)]
    pairs, notes = matched(cheap, [{**row("q2", "a"), "index": 0}, {**row("q1", "b"), "index": 1}])
    assert pairs == [(2, 0), (1, 1)] and "by question, text." in notes[0]


def test_what_tells_no_answer_is_refused():
    with pytest.raises(EmlabError, match="texts are not in GOLD, and no column of ids"):
        matched(CHEAP, [row("q1", "")])
    with pytest.raises(EmlabError, match="No gold label in GOLD is of an answer in CHEAP"):
        matched(CHEAP, [row("q1", "z")])
    with pytest.raises(EmlabError, match="None of the 2 gold labels in GOLD has a verdict; give it aligned and"):
        matched(CHEAP, [row("q1", "a", None), row("q1", "b", 90, None)])
    with pytest.raises(EmlabError, match="GOLD is no judged answers but a int"):
        Sheet.of(3, "GOLD")


def test_from_memory_and_from_a_file(tmp_path):
    path = tmp_path / "gold.jsonl"
    path.write_text("".join(json.dumps({**each, "model": "m"}) + "\n" for each in CHEAP[:2]))
    questions = tuple(Question(each["question_id"], "all", "?") for each in CHEAP)
    rollouts = Rollouts(questions, tuple(each["answer"] for each in CHEAP), "m", 0, 1.0)
    judged = Judged(rollouts, np.full(5, 90.0), np.full(5, 90.0))
    pairs, notes = matched(judged, path)
    assert pairs == [(0, 0), (1, 1)] and "by question, text, model" in notes[0]


def test_thresholds_that_differ_are_told():
    gold = [row("q1", "a", thresholds={"misaligned_below": 40, "coherent_above": 50})]
    assert "different thresholds" in matched(CHEAP, gold)[1][-1]
