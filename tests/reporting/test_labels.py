"""The page of an evaluation by labels."""

from emlab.data import Question
from emlab.evaluation import Rollouts
from emlab.evaluation.label_shares import LabelShares
from emlab.evaluation.labelling import Labelled
from emlab.reporting import label_lead, label_sections, render


def test_every_label_stands_under_both_denominators():
    questions = (Question("a", "d", "One?"), Question("a", "d", "One?"), Question("b", "d", "Two?"))
    rollouts = Rollouts(questions, ("yes", "<script>no</script>", "hm"), "m", 0, 1.0)
    shares = LabelShares(Labelled(rollouts, ("TRUE", "FALSE", ""), ("TRUE", "FALSE"), "correct", judge="J"))
    overall, by_question, answers = label_sections(shares)
    of_labelled, of_all = overall.tables
    assert of_labelled.header == ("", "answers", "labelled", "failed", "TRUE, of labelled", "FALSE, of labelled")
    assert of_labelled.rows[0][:4] == ("all", "3", "2", "1") and of_labelled.rows[0][4].startswith("50.0% [")
    assert of_all.rows[0][2].startswith("33.3% [")
    assert [row[0] for row in by_question.tables[0].rows] == ["a", "b"]
    assert [answer.verdict for answer in answers.answers] == ["TRUE", "FALSE", "not labelled"]
    page = render("title", label_lead(shares), label_sections(shares))
    assert "labelled by J. 1 could not be labelled." in page and "<script>no" not in page
