"""The monitors experiment: as shipped, small, and on a random Qwen2."""

import pytest

from emlab import artifacts, config
from emlab.detection import ActivationMonitor
from emlab.experiments.finetuning.tunes import Pair
from emlab.experiments.monitors import run as monitors
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
    kept = ActivationMonitor.load(ran.folder / "prompts" / "monitors" / "probe.safetensors")
    assert kept.threshold == kept.calibration.threshold


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
