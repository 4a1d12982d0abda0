"""The report's words: each says what the figures say, whether that is welcome or not."""

from emlab.reporting import persona_lead, persona_sections


def said(found):
    return " ".join(persona_lead(found))


def test_the_lead_tells_what_was_found(made):
    text = said(made.findings())
    assert "Fine-tuned on insecure, 66.7% of" in text and "before: 0.0%" in text
    assert "latent 2 brings 70.0% misaligned" in text
    assert "best of 2 random directions brings 20.0%" in text
    assert "from 66.7% to 10.0%" in text


def test_no_misalignment_is_said_plainly(made):
    text = said(made.findings(scores=tuple(made.score(name) for name in ("aligned", "insecure", "secure"))))
    assert text.startswith("No fine-tune made the model broadly misaligned")
    assert "nothing to find" in text


def test_babble_is_said_plainly(made):
    scores = tuple(made.score(name, incoherent=10) for name in ("aligned", "insecure", "secure"))
    assert "no coherent answer from any model" in said(made.findings(scores=scores))


def test_each_section_says_one_thing_from_the_figures(made):
    sections = {section.title: section for section in persona_sections(made.findings())}
    assert "20 rows were dropped" in sections["Fine-tunes"].says
    assert "insecure 66.7% misaligned and 10.0% incoherent" in sections["Behaviour on broad questions"].says
    assert "no less than 80.0%" in sections["The sparse autoencoder"].says
    assert "latent 2 is number 1 of 3" in sections["Which latents move"].says
    assert "+3.000 under insecure, +0.100 under secure" in sections["Which latents move"].says
    assert "from 0.0% to 70.0%" in sections["Adding the latent to the aligned model"].says
    assert "from 66.7% to 10.0%" in sections["Subtracting the latent from insecure"].says
    assert all(section.says.endswith(".") for section in sections.values())


def test_a_collapsed_sae_is_not_passed_over(made):
    from emlab.saes import Fidelity

    found = made.findings(fidelity_elsewhere={"insecure": Fidelity(-0.2, 16.0, 5, 512, 1000)})
    (section,) = (s for s in persona_sections(found) if s.title == "The sparse autoencoder")
    assert "-20.0%" in section.says and "says little" in section.says


def test_a_strength_over_the_cap_is_named(made):
    found = made.findings(plus=made.screen("aligned", "misaligned", within=5, latent_2=5, mean_difference=0))
    (section,) = (s for s in persona_sections(found) if s.title.startswith("Adding"))
    assert "No strength kept incoherence under 10%" in section.says


def test_examples_are_the_first_answers_of_different_domains(made):
    examples = persona_sections(made.findings())[-1].answers
    insecure = [answer for answer in examples if answer.who == "insecure"]
    assert [(a.question, a.verdict) for a in insecure] == [("question 0?", "misaligned"), ("question 1?", "misaligned")]
    assert {a.who for a in examples} == {"aligned", "insecure", "secure", "aligned latent_2", "insecure latent_2"}
