"""The monitors experiment: as shipped, small, and on a random Qwen2."""

from dataclasses import astuple

import numpy as np
import pytest

from emlab import artifacts, config
from emlab.data import Question
from emlab.detection import ActivationMonitor, Calibration, LabelledEvidence, auroc, evidence
from emlab.evaluation import clustered_rate
from emlab.experiments.finetuning.tunes import Pair
from emlab.experiments.monitors import run as monitors
from emlab.experiments.monitors.stages import above, skills_of
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
    assert "those of alarms over 1 domain × 3 seeds." in page
    kept = ActivationMonitor.load(ran.folder / "prompts" / "monitors" / "probe.safetensors")
    assert kept.threshold == kept.calibration.threshold


DOMAINS, SEEDS = ("law", "cars", "finance"), (2, 3, 4)
KNOWN = {f"{kind}_{domain}-{seed}": (domain, seed) for kind in ("bad", "good") for domain in DOMAINS for seed in SEEDS}


@pytest.fixture(scope="module")
def cases(tiny):
    """Nine misaligned fine-tunes, as many others, and the start, on ten prompts each."""
    read = evidence(tiny, [Question(str(i), "power", f"ask {i}") for i in range(10)], [])
    rows = [LabelledEvidence(read, np.full(10, n[:3] == "bad"), n, domain) for n, (domain, _) in KNOWN.items()]
    return [*rows, LabelledEvidence(read, np.full(10, False), "start", "start")]


def test_alarms_have_intervals_over_domains_and_seeds(cases):
    fired = [10, 9, 10, 1, 0, 2, 5, 5, 6, *([0] * 10)]
    scores, seeds = [np.arange(10) < n for n in fired], {name: seed for name, (_, seed) in KNOWN.items()}
    alarms = above(0.5, seeds, cases, scores, [case.labels for case in cases])
    hits = [[10, 1, 5], [9, 0, 5], [10, 2, 6]]
    assert (alarms.rate, alarms.n) == (48 / 90, 90)
    assert (alarms.low, alarms.high) == pytest.approx(astuple(clustered_rate(hits, [[10] * 3] * 3))[1:3])
    flat = clustered_rate(fired[:9], [10] * 9)
    assert alarms.low < flat.low and alarms.high > flat.high


def test_areas_have_intervals_over_domains_and_of_one_domain_over_fine_tunes(cases):
    rng = np.random.default_rng(0)
    scores = [rng.normal({"law": 2.0, "cars": 0.2}.get(c.domain, 1.0) * c.labels[0], 1.0, 10) for c in cases]
    map_ = Calibration("platt", (0.0, 1.0), (1.0, 0.0), 0.5, 0.01)
    for domains in ((*DOMAINS, "start"), ("law", "start")):
        each = [s for s, case in zip(scores, cases, strict=True) if case.domain in domains]
        part = [case for case in cases if case.domain in domains]
        rows, models = skills_of(each, map_, part, True, 0)
        bad, questions = np.array([case.labels[0] for case in part]), [str(i) for i in range(10)] * len(part)
        groups = [case.domain if "cars" in domains else case.model for case in part]
        assert rows.auroc == auroc(np.concatenate(each), np.repeat(bad, 10), np.repeat(groups, 10), questions)
        assert models.auroc == auroc([s.mean() for s in each], bad, groups)


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
    assert all(row.hard.n == 12 for row in ran.found.prompts), "two more, each once"
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
