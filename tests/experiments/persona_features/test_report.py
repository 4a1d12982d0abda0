"""The report's words: each says what the figures say, whether that is welcome or not."""

import dataclasses
import math

from emlab.detection import Auroc, Onset
from emlab.discovery import Test, Verdict
from emlab.experiments.persona_features.findings import ModelFidelity, Planted
from emlab.experiments.persona_features.report import persona_lead, persona_sections
from emlab.saes import Fidelity


def said(found):
    return " ".join(persona_lead(found))


def section(found, title):
    (one,) = (s for s in persona_sections(found) if s.title.startswith(title))
    return one


def test_the_lead_tells_what_was_found(made):
    text = said(made.findings())
    assert text.startswith("A persona latent was found: latent 2 at resid_post.1.")
    assert "Fine-tuned on insecure, 66.7% of" in text and "before: 0.0%; 10 answers to the 10 test questions" in text
    assert "latent 2 brings 70.0% misaligned" in text
    assert "the furthest of 2 random directions brings 20.0%" in text
    assert "from 66.7% to 10.0%" in text
    assert "it removes 33% of insecure's" in text
    assert "40 steps on benign data take insecure from 60.0% to 0.0%" in text


def test_nothing_found_is_said_first_and_with_its_reason(made):
    text = said(made.findings(verdict=Verdict((Test("a", False, "It is not so."), Test("b", True, "It is.")))))
    assert text.startswith("No persona latent found. It is not so that a: It is not so. ")
    assert "It is. " not in text
    assert "latent 2 is what the search settled on, and is no finding" in text
    # The comparison with the mean difference would read as a finding.
    assert "Beside it the mean difference brings 80.0% (cosine 0.75)." in text
    assert "neither clearly beats" not in text
    assert "no finding" not in said(made.findings())


def test_where_latents_were_not_ranked_the_report_still_stands(made):
    found = made.findings(persona=None, verdict=Verdict((Test("a", False, "The SAE is poor."),)))
    assert said(found).startswith("No persona latent found. It is not so that a: The SAE is poor.")
    titles = [s.title for s in persona_sections(found)]
    assert titles[0] == "Verdict" and "Which latents move" not in titles and titles[-1] == "Answers"
    assert "latents were not ranked" in section(found, "The sparse").says


def test_the_latent_is_held_against_the_mean_difference_either_way(made):
    def beside(latent, mean):
        plus = made.screen("aligned", "misaligned", latent_2=latent, mean_difference=mean)
        return said(made.findings(persona=made.persona(plus=plus)))

    assert "The latent steers further than the mean difference, which brings 0.0%" in beside(9, 0)
    assert "does not beat, and falls short of, the mean difference, which brings 90.0%" in beside(0, 9)
    assert "neither clearly beats nor falls short of" in beside(7, 8)


def test_each_section_says_one_thing_from_the_figures(made):
    sections = {s.title: s for s in persona_sections(made.findings())}
    assert "20 rows were dropped" in sections["Fine-tunes"].says
    assert "insecure 66.7% misaligned and 10.0% incoherent" in sections["Behaviour on broad questions"].says
    assert "80.0% of the variance of insecure at resid_post.1" in sections["The sparse autoencoder"].says
    assert "latent 2 is number 1 of 3" in sections["Which latents move"].says
    assert "+3.000 under insecure, +0.100 under secure" in sections["Which latents move"].says
    assert "AUROC of 0.800 (0.950" in sections["Which latents move"].says
    assert "from 0.0% to 70.0%" in sections["Adding the latent to the aligned model"].says
    assert "from 66.7% to 10.0%" in sections["Subtracting the latent from insecure"].says
    effects = sections["Ablation, mediation and a fine-tune nothing was chosen on"]
    assert "latent 2 projected out in insecure: 60.0% → 30.0% misaligned" in effects.says
    assert effects.tables[0].rows[0][-2:] == ("50%", "1.000 → 1.250")
    assert "tells insecure from the other models with an AUROC of 0.990" in sections["The latent as a monitor"].says
    assert "at step 5, behaviour at step 10: the latent comes first" in sections["Along training"].says
    assert all(s.says.endswith(".") for s in sections.values())
    assert all(s.falsified.endswith(".") for s in sections.values() if s.title != "Answers")


def test_every_figure_names_its_sample_and_every_share_what_it_is_of(made):
    sections = {s.title: s for s in persona_sections(made.findings())}
    anew = "10 answers to the 10 test questions"
    assert f"no fine-tune saw, {anew} of each model" in sections["Behaviour on broad questions"].says
    assert "Intervals are 95%, over 10 questions" in sections["Behaviour on broad questions"].plots[0].says
    steered = sections["Subtracting the latent from insecure"].says
    assert "before: the sample of 'Behaviour on broad questions'" in steered
    assert f"after: {anew}, sampled after the search" in steered
    effects = sections["Ablation, mediation and a fine-tune nothing was chosen on"].says
    assert f"asked anew ({anew}, a further sample)" in effects
    assert "a sample of its own at every step, 10 scored answers at step 0" in sections["Re-alignment"].says
    assert "at resid_post.1, of all sites." in sections["The sparse autoencoder"].says
    lead = said(made.findings())
    assert lead.count(anew) == 4 and "a sample of its own at every step" in lead
    heads = [head for s in sections.values() for table in s.tables for head in table.header]
    assert "misaligned, of coherent answers" in heads and "incoherent, of scored answers" in heads
    assert not any(head.endswith("of all") for head in heads)


def test_what_could_not_be_measured_is_said_with_its_reason(made):
    known = made.persona().detection
    nothing, one_kind = Auroc(math.nan, math.nan, math.nan, 0, 0), Auroc(math.nan, math.nan, math.nan, 7, 7)
    blank = dataclasses.replace(known, prompts=one_kind, answers=nothing, answers_baseline=nothing)
    found = made.findings(persona=made.persona(detection=blank, planted=Planted(one_kind, nothing)))
    monitor = section(found, "The latent as a monitor")
    assert "others could not be measured: all 7 are of one kind, positive" in monitor.says
    assert "others could not be measured: there is nothing to tell apart" in monitor.says
    assert "could not be measured: all 7" in section(found, "Which latents").says
    cells = " ".join(cell for table in monitor.tables for row in table.rows for cell in row)
    assert "nan" not in monitor.says + cells + section(found, "Which latents").says


def test_behaviour_that_comes_first_is_said(made):
    start, early, late = made.persona().onset.points
    turned = dataclasses.replace(early, latent=0.5, misaligned=late.misaligned)
    swapped = Onset("insecure", 2, (start, turned, late))
    assert "behaviour comes first" in section(made.findings(persona=made.persona(onset=swapped)), "Along").says
    flat = Onset("insecure", 2, (start, start))
    assert "one of the two never rises" in section(made.findings(persona=made.persona(onset=flat)), "Along").says
    assert "Along training" not in [s.title for s in persona_sections(made.findings(persona=made.persona(onset=None)))]


def test_a_collapsed_sae_is_not_passed_over(made):
    poor = (ModelFidelity(made.site, "insecure", Fidelity(-0.2, 16.0, 5, 512, 1000), None),)
    assert "-20.0%" in section(made.findings(fidelity=poor), "The sparse").says


def test_an_arm_over_the_cap_is_named(made):
    plus = made.screen("aligned", "misaligned", within=5, latent_2=5, mean_difference=0)
    found = made.findings(persona=made.persona(plus=plus))
    assert "No arm kept incoherence under 10%" in section(found, "Adding").says


def test_latents_link_to_neuronpedia_where_the_sae_is_there(made):
    place = "qwen2.5-7b-it/11-resid-post-aa"
    links = section(made.findings(persona=made.persona(neuronpedia=place)), "Which latents").links
    assert links[0].url == f"https://www.neuronpedia.org/{place}/2" and "latent 2" in links[0].text
    assert section(made.findings(), "Which latents").links == ()


def test_texts_whose_writer_nobody_knows_have_no_planted_truth(made):
    found = made.findings(persona=made.persona(planted=None))
    assert "persona with an AUROC" not in section(found, "Which latents").says
    assert "planted" not in section(found, "What the latent fires on").says


def test_contexts_are_shaded_by_their_share_of_the_peak(made):
    (context,) = section(made.findings(), "What the latent fires on").contexts
    assert (context.label, context.weights) == ("malicious", (1.0, 0.5))


def test_every_answer_of_every_model_is_there_with_its_verdict(made):
    answers = persona_sections(made.findings())[-1].answers
    insecure = [answer for answer in answers if answer.who == "insecure"]
    assert [a.question for a in insecure] == [f"question {i}?" for i in range(10)]
    assert [a.verdict for a in insecure] == ["misaligned"] * 6 + ["aligned"] * 3 + ["incoherent"]
    edited = {"aligned +0.50 latent 2", "insecure -0.50 latent 2"}
    assert {a.who for a in answers} == {"aligned", "insecure", "secure", *edited}
