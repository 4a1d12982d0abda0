"""The monitors experiment: as shipped, small, and on a random Qwen2."""

from dataclasses import astuple

import numpy as np
import pytest

from emlab import artifacts, config
from emlab.data import Question
from emlab.detection import ActivationMonitor, LabelledEvidence, evidence
from emlab.evaluation import clustered_rate
from emlab.experiments.finetuning.tunes import Pair
from emlab.experiments.monitors import run as monitors
from emlab.experiments.monitors.stages import above
from tests.experiments.pairs import EXPERIMENTS, FEW, SITES, TINY, check_shipped, pair


def test_the_shipped_experiment_spells_every_key_right():
    check_shipped("monitors", monitors)


def test_monitors_of_another_model(other_model, sets, tmp_path):
    parts = [f"fit=[{pair(sets, 'a')},{pair(sets, 'b')}]", f"test=[{pair(sets, 'c')}]", "hard=[]", SITES]
    more = ["test_seeds=[1,2,3]", "calibration=isotonic"]
    settings = config.load(EXPERIMENTS / "monitors.yaml", [*TINY, *other_model, *parts, *more], monitors.Config)
    ran = monitors.run(settings, tmp_path)
    kinds = {row.kind for row in ran.found.prompts}
    assert kinds == {"projection", "probe", "perplexity", "bag of words"}, "there is no SAE, so there are no latents"
    words = next(row for row in ran.found.prompts if row.kind == "bag of words")
    assert words.skill.auroc.auroc == 0.5 and all(row.skill.auroc.positives == 18 for row in ran.found.prompts)
    assert artifacts.read_json(ran.folder / "summary.json")["prompts"][0]["skill"]["auroc"]["n"] == 42
    page = (ran.folder / "report.html").read_text()
    assert "Models, from prompts alone" in page and str(sets["bad_c"].stem) in page
    assert "Those of alarms are over 1 domain × 3 seeds." in page
    kept = ActivationMonitor.load(ran.folder / "prompts" / "monitors" / "probe.safetensors")
    assert kept.threshold == kept.calibration.threshold


def test_alarms_have_intervals_over_domains_and_seeds(tiny):
    domains, seeds = ("law", "cars", "finance"), (2, 3, 4)
    questions = [Question(str(i), "power", f"ask {i}") for i in range(10)]
    read = evidence(tiny, questions, [])
    known = {f"bad_{domain}-{seed}": (domain, seed) for domain in domains for seed in seeds}
    cases = [LabelledEvidence(read, np.full(10, True), name, domain) for name, (domain, _) in known.items()]
    cases.append(LabelledEvidence(read, np.full(10, False), "start", "start"))
    fired = [10, 9, 10, 1, 0, 2, 5, 5, 6, 0]
    scores = [np.arange(10) < n for n in fired]
    alarms = above(0.5, {name: seed for name, (_, seed) in known.items()}, cases, scores, [c.labels for c in cases])
    hits = [[10, 1, 5], [9, 0, 5], [10, 2, 6]]
    assert (alarms.rate, alarms.n) == (48 / 90, 90)
    assert (alarms.low, alarms.high) == pytest.approx(astuple(clustered_rate(hits, [[10] * 3] * 3))[1:3])
    flat = clustered_rate(fired[:9], [10] * 9)
    assert alarms.low < flat.low and alarms.high > flat.high


@pytest.mark.slow
def test_on_the_organism_a_monitor_knows_a_domain_it_has_not_seen(tmp_path):
    more = ["fit_seeds=[0]", "test_seeds=[1,2,3]", "hard=[]"]
    more += ["test=[{domain: law, misaligned: [bad_law], others: [good_law]}]"]
    ran = monitors.run(config.load(EXPERIMENTS / "monitors.yaml", [*FEW, *more], monitors.Config), tmp_path)
    rows = {row.kind: row for row in ran.found.prompts}
    assert rows["probe"].skill.auroc.auroc > 0.9 and rows["bag of words"].skill.auroc.auroc == 0.5


def test_a_sealed_run_fits_on_ordinary_fine_tunes_and_tests_on_sealed_ones(reserve, tmp_path):
    law = "test=[{domain: law, misaligned: [bad_law], others: [good_law]}]"
    more = [law, "test_seeds=[1, 2]", "hard=[sarcastic_law]", "sae=null", "sealed=true", SITES]
    ran = monitors.run(config.load(EXPERIMENTS / "monitors.yaml", [*TINY, *more], monitors.Config), tmp_path)
    trained = {path.name for path in (ran.folder / "train").iterdir()}
    fitted = {f"{name}-aligned-0" for name in ("insecure", "secure", "bad_medicine", "good_medicine")}
    sets = ("bad_law", "good_law", "sarcastic_law")
    assert trained == fitted | {f"{name}-aligned-{seed}" for name in sets for seed in (7001, 7002)}
    assert {row.kind for row in ran.found.prompts} == {"projection", "probe", "perplexity", "bag of words"}
    assert all(row.skill.auroc.n == 30 for row in ran.found.prompts), "the start and four more"
    assert "SEALED RUN" in ran.summary["findings"][0]


@pytest.mark.slow
def test_a_sealed_run_watches_sealed_answers_and_sets_its_threshold_on_others(reserve, tmp_path):
    more = ["fit_seeds=[0]", "test_seeds=[1,2,3,4,5]", "hard=[]", "sealed=true"]
    more += ["test=[{domain: law, misaligned: [bad_law], others: [good_law]}]"]
    ran = monitors.run(config.load(EXPERIMENTS / "monitors.yaml", [*FEW, *more], monitors.Config), tmp_path)
    assert ran.found.stream is not None and ran.found.stream.recall.n > 0


def test_wrong_settings():
    a, b = (Pair(d, ("x",), ("y",)) for d in "ab")
    for broken in (
        {"fit": (a,)},
        {"test": (a,), "fit": (a, b)},
        {"sites": ()},
        {"test_seeds": ()},
        {"calibration": "beta"},
        {"several": 0},
    ):
        with pytest.raises(ValueError):
            monitors.Config(**broken)
    with pytest.raises(ValueError, match="name one of each"):
        Pair("d", (), ("x",))
