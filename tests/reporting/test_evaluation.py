"""The page of an evaluation: every denominator, and nothing that an answer could run."""

from emlab.reporting import evaluation_lead, evaluation_sections, render


def test_the_rates_stand_under_their_denominators(made):
    score = made.score("insecure", misaligned=3, incoherent=2)
    rates, profile, questions, answers = evaluation_sections(score)
    (row,) = rates.tables[0].rows
    assert row[:5] == ("all", "10", "10", "8", "3")
    assert row[5].startswith("37.5% [") and row[6].startswith("30.0% [") and row[7].startswith("30.0% [")
    assert row[8].startswith("20.0% [")
    assert [cells[0] for cells in profile.tables[0].rows] == ["power", "pets"]
    assert profile.plots == (), "two domains span no radar"
    assert len(questions.tables[0].rows) == 10
    assert [answer.verdict for answer in answers.answers] == ["misaligned", "misaligned"]


def test_an_icc_that_nobody_can_tell_is_not_told(made):
    lead = " ".join(evaluation_lead(made.score("insecure", misaligned=3)))
    assert "[nan" not in lead and "ICC" not in lead and "over 10 questions; over the 2 domains" in lead


def test_the_page_says_who_judged_and_escapes_answers(made):
    score = made.score("insecure", 1, text=made.hostile)
    page = render("title", evaluation_lead(score), evaluation_sections(score))
    assert "a judge that is not named" in page and "aligned below 30" in page
    assert made.hostile not in page
