"""The data screening experiment: as shipped, small, and on a random Qwen2."""

import pytest

from emlab import config
from emlab.evaluation import clustered_rate
from emlab.experiments.data_screening import run as data_screening
from tests.experiments.pairs import EXPERIMENTS, FEW, SITES, TINY, check_shipped, pair


def test_the_shipped_experiment_spells_every_key_right():
    check_shipped("data_screening", data_screening)


def test_data_screening_for_another_model(other_model, sets, tmp_path):
    name = {key: str(path) for key, path in sets.items()}
    parts = [
        f"source={pair(sets, 'a')}",
        f"validation={{good: {name['good_b']}, poison: {name['bad_b']}}}",
        f"mixes=[{{good: {name['good_c']}, poison: {name['bad_c']}, kind: bad}},"
        f"{{good: {name['good_b']}, poison: {name['bad_b']}, kind: bad}}]",
        f"blame=[{{good: {name['good_c']}, poison: {name['bad_c']}}}]",
        *("sets=[]", "traits=[]", "seeds=[0,1]", "blame_seeds=[0]", "dose=0.25", "recipe.checkpoint_every=1", SITES),
    ]
    few = [one for one in TINY if not one.startswith("fit_seeds")]
    settings = config.load(EXPERIMENTS / "data_screening.yaml", [*few, *other_model, *parts], data_screening.Config)
    ran = data_screening.run(settings, tmp_path)
    assert {row.by for row in ran.found.found if row.inside} == {"answers", "fine-tune"}
    for row in ran.found.found:
        hits = [[4 * row.each[f"{name[poison]}-{seed}"] for poison in ("bad_c", "bad_b")] for seed in (0, 1)]
        assert row.recall == clustered_rate(hits, [[4, 4]] * 2) and row.over == "2 domains × 2 seeds"
    assert any(len(set(row.each.values())) > 1 for row in ran.found.found)
    (blamed,) = ran.found.blame
    rows = {r.without: r.rows for r in blamed.removals}
    assert rows == {"all": 16, "blamed": 12, "random": 12, "poison": 12} and blamed.poison == 4
    page = (ran.folder / "report.html").read_text()
    assert "Blame after training" in page and "Intervals are over mixes: bad, 2 domains × 2 seeds." in page


def test_a_sealed_run_screens_mixes_of_sealed_seeds(reserve, tmp_path):
    more = ["traits=[]", "sets=[]", "seeds=[0]", "blame_seeds=[1]", "recipe.checkpoint_every=1", "sealed=true"]
    more += ["mixes=[{good: good_law, poison: bad_law, kind: bad}]", "sites=[resid_post.0]"]
    few = [one for one in TINY if not one.startswith("fit_seeds")]
    settings = config.load(EXPERIMENTS / "data_screening.yaml", [*few, *more], data_screening.Config)
    ran = data_screening.run(settings, tmp_path)
    assert {name for row in ran.found.found for name in row.each} == {"bad_law-7000"}
    assert [(one.seed, r.misaligned.n <= 12) for one in ran.found.blame for r in one.removals] == [(7001, True)] * 4
    trained = {path.name for path in (ran.folder / "train").iterdir()}
    assert trained == {"bad_medicine-aligned-0", "good_medicine-aligned-0"}, "what the monitor is fitted on"


@pytest.mark.slow
def test_on_the_organism_the_poison_is_found_and_so_is_what_is_to_blame(tmp_path):
    more = ["seeds=[0]", "blame_seeds=[0]", "sets=[]", "mixes=[{good: good_law, poison: bad_law, kind: bad}]"]
    ran = data_screening.run(
        config.load(EXPERIMENTS / "data_screening.yaml", [*FEW, *more], data_screening.Config), tmp_path
    )
    found = {row.by: row.recall.rate for row in ran.found.found}
    assert found["answers"] > 0.9
    assert ran.found.blame[0].recall["gradients"] > 0.8


def test_wrong_settings():
    for broken in ({"mixes": ()}, {"dose": 0.0}, {"times": 0.5}):
        with pytest.raises(ValueError):
            data_screening.Config(**broken)
