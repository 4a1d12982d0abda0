"""The early warning experiment: as shipped, and small on a random Qwen2."""

import pytest

from emlab import config
from emlab.experiments.early_warning import run as early_warning
from emlab.experiments.finetuning.tunes import Pair
from tests.experiments.pairs import EXPERIMENTS, SITES, TINY, check_shipped, pair


def test_the_shipped_experiment_spells_every_key_right():
    check_shipped("early_warning", early_warning)


def test_early_warning_of_another_model(other_model, sets, tmp_path):
    parts = [f"fit=[{pair(sets, 'a')},{pair(sets, 'b')}]", f"watched={pair(sets, 'c')}", SITES, "doses=[0.5]"]
    more = ["seeds=[2]", "control_seeds=[3]", "samples=3", "recipe.checkpoint_every=1"]
    settings = config.load(
        EXPERIMENTS / "early_warning.yaml", [*TINY, *other_model, *parts, *more], early_warning.Config
    )
    ran = early_warning.run(settings, tmp_path)
    (curve,), (dose,) = ran.found.curves, ran.found.dose_curves
    assert curve.at == (0, 1, 2) and dose.at == (0, 0.5, 1)
    assert dose.scores["behaviour"][0] == curve.scores["behaviour"][0]
    always = ran.found.steps[-1]
    assert always.monitor == "always on" and not always.quiet and always.earlier == 0
    assert all(row.false_positives.n == 3 for row in ran.found.steps), "the watched domain's control at three places"
    assert len(ran.found.steps_noise) == 100 and "noise (100 monitors)" in (ran.folder / "report.html").read_text()
    assert "Along doses" in (ran.folder / "report.html").read_text()


def test_a_sealed_run_watches_fine_tunes_of_sealed_seeds(reserve, tmp_path):
    more = ["seeds=[2]", "control_seeds=[3]", "samples=3", "recipe.checkpoint_every=1", "doses=[]", "sae=null", SITES]
    settings = config.load(EXPERIMENTS / "early_warning.yaml", [*TINY, *more, "sealed=true"], early_warning.Config)
    ran = early_warning.run(settings, tmp_path)
    curves = {path.name for path in (ran.folder / "curves").iterdir()}
    assert curves == {"bad_law-7002", "good_law-7002", "secure-3", "good_medicine-3"}
    (curve,) = ran.found.curves
    assert (curve.seed, len(curve.rates)) == (7002, 3) and "SEALED RUN" in ran.summary["findings"][0]


def test_wrong_settings():
    a, b = (Pair(d, ("x",), ("y",)) for d in "ab")
    for broken in ({"fit": (a,)}, {"watched": a, "fit": (a, b)}, {"seeds": ()}, {"doses": (0.5, 0.1)}, {"samples": 0}):
        with pytest.raises(ValueError):
            early_warning.Config(**broken)
