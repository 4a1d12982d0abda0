"""summary.json, from findings made by hand."""

import dataclasses
import json

import jsonschema
import pytest

from emlab import artifacts
from emlab.discovery import Trial
from emlab.errors import EmlabError
from emlab.experiments.persona_features.summary import persona_summary, random_entry, summary_schema
from emlab.provenance import Ledger, code, provenance


def test_rates_keep_their_denominators(made):
    found = persona_summary(made.findings())
    # Of ten answers one is incoherent and six of the other nine are misaligned.
    assert found["misaligned"]["insecure"]["rate"] == pytest.approx(6 / 9)
    assert found["misaligned"]["insecure"]["n"] == 9
    assert found["incoherent"]["insecure"]["rate"] == pytest.approx(1 / 10)
    assert found["incoherent"]["insecure"]["n"] == 10
    assert set(found["misaligned"]["aligned"]) == {"rate", "low", "high", "n"}


def test_the_persona_latent(made):
    latent = persona_summary(made.findings())["persona_latent"]
    assert (latent["index"], latent["site"], latent["shift_rank"]) == (2, "resid_post.1", 1)
    assert latent["shift"] == {"insecure": pytest.approx(3.0), "secure": pytest.approx(0.1)}
    assert latent["shift_rank_in"] == {"insecure": 1, "secure": 2}


def test_steering_both_ways_beside_its_nulls(made):
    steering = persona_summary(made.findings())["steering"]
    assert steering["aligned_plus"]["misaligned"] == pytest.approx(0.7)
    assert steering["aligned_plus"]["strength"] == 0.5
    assert steering["misaligned_minus"]["strength"] == -0.5
    assert steering["misaligned_minus"]["model"] == "insecure"
    # The random direction to beat.
    assert (steering["random_plus"]["direction"], steering["random_plus"]["misaligned"]) == ("random 1", 0.2)
    assert steering["random_plus"]["mean"] == pytest.approx(0.1)
    assert (steering["random_minus"]["direction"], steering["random_minus"]["misaligned"]) == ("random 1", 0.5)
    assert steering["mean_difference_minus"]["misaligned"] == 0.0


@pytest.mark.parametrize(("toward", "far", "near"), [("misaligned", 0, 4), ("aligned", 10, 96)])
def test_the_random_direction_to_beat_reaches_furthest_by_its_interval(made, toward, far, near):
    few = made.screen("m", toward, random_1=far)  # of ten answers
    arm = made.screen("m", toward, random_0=0).test[0].arm
    many = Trial(arm, made.score("m random_0", near, n=100))
    silent = made.screen("m", toward, within=10, random_2=0)
    entry = random_entry(dataclasses.replace(few, test=(*silent.test, many, *few.test)))
    assert entry["direction"] == "random 1" and entry["misaligned"] == far / 10
    if toward == "misaligned":
        assert many.score.misaligned.rate > entry["misaligned"] and many.score.misaligned.high < entry["high"]
    else:
        assert many.score.misaligned.rate < entry["misaligned"] and many.score.misaligned.low > entry["low"]
    assert (entry["directions"], entry["mean"]) == (3, pytest.approx((far / 10 + near / 100) / 2))


def test_without_random_directions_there_is_no_entry(made):
    plus = made.screen("aligned", "misaligned", latent_2=7, mean_difference=8)
    assert persona_summary(made.findings(persona=made.persona(plus=plus)))["steering"]["random_plus"] is None


def test_where_nothing_is_coherent_rates_are_null(made):
    babble = made.screen("aligned", "misaligned", within=10, latent_2=0, mean_difference=0, random_0=0)
    scores = (made.score("aligned", incoherent=10), made.score("insecure", 3), made.score("secure"))
    found = persona_summary(made.findings(persona=made.persona(plus=babble), scores=scores))
    assert found["misaligned"]["aligned"] == {"rate": None, "low": None, "high": None, "n": 0}
    assert found["steering"]["aligned_plus"]["misaligned"] is None
    assert found["steering"]["aligned_plus"]["incoherent"] == 1.0
    assert found["steering"]["aligned_plus"]["within_cap"] is False
    assert found["steering"]["random_plus"]["mean"] is None
    json.dumps(found, allow_nan=False)


def test_findings_that_lack_a_part_say_which(made):
    with pytest.raises(EmlabError, match="no direction 'mean difference'"):
        made.persona(plus=made.screen("aligned", "misaligned", latent_2=7))
    with pytest.raises(EmlabError, match="no score of 'insecure'"):
        made.findings(scores=(made.score("aligned"),)).score("insecure")


def whole(found):
    """A summary with what the pipeline adds."""
    run = {"findings": ["a"], "seed": 0, "wall_seconds": 1.0, "stage_seconds": {"a": 1.0}, "peak_rss_mb": None}
    told = artifacts.plain(provenance({"seed": 0}, Ledger().processes(), {"detect": (code(),)}))
    return {**persona_summary(found), **run, "versions": {"emlab": "0"}, "provenance": told}


def test_it_keeps_to_its_schema_found_or_not(made):
    schema = summary_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(whole(made.findings()), schema)
    jsonschema.validate(whole(made.findings(persona=None)), schema)
    jsonschema.validate(whole(made.findings(persona=made.persona(onset=None, effects={}))), schema)
    broken = whole(made.findings())
    broken["misaligned"]["insecure"]["rate"] = 1.2
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_effects_and_detection(made):
    found = persona_summary(made.findings())
    assert found["ablation"]["removed"] == pytest.approx(0.5) and found["mediation"]["removed"] == pytest.approx(1 / 3)
    assert found["steering"]["unseen_minus"]["model"] == "bad_law"
    assert found["detection"]["auroc"] == 0.99 and found["detection"]["baseline_auroc"] == 0.5
    assert found["detection"]["models"] == {"aligned": False, "insecure": True}
    assert found["onset"]["latent_step"] == 5 and found["onset"]["behaviour_step"] == 10
    assert found["realignment"][1] == {
        "step": 40,
        "misaligned": 0.0,
        "low": 0.0,
        "high": 0.0,
        "n": 10,
        "incoherent": 0.0,
    }
    assert found["sae"]["explained_variance"] == 0.95
    assert found["sae"]["explained_variance_finetuned"] == {"aligned": 0.9, "insecure": 0.8}
    assert found["persona_latent"]["planted_auroc"] == 0.8
