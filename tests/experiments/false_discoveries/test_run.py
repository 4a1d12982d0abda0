"""The search for false discoveries: its conditions, and a small version of it on the shipped organism."""

import dataclasses
from pathlib import Path

import pytest

from emlab import artifacts, config, provenance
from emlab.evaluation import wilson
from emlab.experiments.false_discoveries import run as false_discoveries
from emlab.experiments.false_discoveries.run import CONDITIONS, Config, Outcome, counts
from emlab.provenance import Code
from emlab.runs import keep_stages

YAML = Path(__file__).parents[3] / "experiments" / "false_discoveries.yaml"

SMALL = (
    *(
        "experiment.rows=200",
        "experiment.recipe.steps=30",
        "experiment.questions=40",
        "experiment.answers.per_question=1",
    ),
    *("experiment.steering.random=3", "experiment.steering.strengths=[0.6, 1.2]", "experiment.documents=32"),
    *(
        "experiment.steering.questions=20",
        "experiment.realigning.recipe.steps=1",
        "experiment.recipe.checkpoint_every=0",
    ),
    "experiment.sae.test_tokens=1000",
)


def test_the_shipped_config_spells_every_key_right():
    assert sorted(config.load(YAML, [], Config).searches) == sorted(CONDITIONS)


def test_the_unchecked_search_is_the_same_but_for_the_bounds_of_the_check():
    kept, bare = (config.load(path, [], Config) for path in (YAML, YAML.with_stem("false_discoveries_unchecked")))
    bounds = {"least_variance": 0.0, "most_drop": 1.0}
    same = dataclasses.replace(kept.experiment, sae=dataclasses.replace(kept.experiment.sae, **bounds))
    assert bare.experiment == same
    assert bare.searches == {"control_everywhere": kept.searches["control_everywhere"]}


def test_nothing_is_found_where_nothing_is(tmp_path):
    more = ["searches={secure_only: 1, shuffled_labels: 1}"]
    done = false_discoveries.run(config.load(YAML, [*SMALL, *more], Config), tmp_path)
    assert [(o.condition, o.found) for o in done.found] == [("secure_only", False), ("shuffled_labels", False)]
    assert str(done).splitlines()[:3] == [
        "secure_only: found in 0 of 1 (at most 79%), behaviour there in 0.",
        "shuffled_labels: found in 0 of 1 (at most 79%), behaviour there in 0.",
        "False discoveries: 0 of 2.",
    ]
    secure, shuffled = (" ".join(o.reasons) for o in done.found)
    assert "secure" in secure and "not clearly above" in secure
    assert "misaligned" in shuffled
    summary = artifacts.read_json(done.folder / "summary.json")
    assert (summary["false_discoveries"], summary["searches"]) == (0, 2)
    assert all((done.folder / o.summary).is_file() for o in done.found)


@pytest.mark.slow
def test_stages_that_a_search_kept_of_other_code_are_told_of_by_the_whole(tmp_path, monkeypatch):
    more = ["searches={secure_only: 1}", "experiment.rows=20", "experiment.recipe.steps=1", "experiment.questions=8"]
    more += ["experiment.steering.random=1", "experiment.steering.strengths=[0.6]", "experiment.steering.questions=4"]
    settings = config.load(YAML, [*SMALL, *more], Config)
    old = Code("a" * 16, "0.1.0")
    with monkeypatch.context() as patch:

        def power_cut(*_, **__):
            raise KeyboardInterrupt

        patch.setattr(provenance, "code", lambda: old)
        patch.setattr(false_discoveries.persona_features, "finish_run", power_cut)
        with pytest.raises(KeyboardInterrupt):
            false_discoveries.run(settings, tmp_path)
    with keep_stages():
        done = false_discoveries.run(settings, tmp_path)
    assert "CAUTION: stages come from other code (aaaaaaaa, emlab 0.1.0)" in done.summary["findings"][0]
    told = done.summary["provenance"]["stages_of_other_code"]
    inner = artifacts.read_json(done.folder / done.found[0].summary)["provenance"]["stages_of_other_code"]
    assert inner and told == {f"searches/secure_only-0/{stage}": codes for stage, codes in inner.items()}
    made = artifacts.read_json(done.folder / "outcomes" / "secure_only-0" / "stage.json")["codes"]
    assert artifacts.plain(old) in made, "and a later run begins it anew"


def test_what_is_counted():
    outcomes = [Outcome("planted", 0, True, True, (), "a"), Outcome("control_everywhere", 0, True, True, (), "b")]
    outcomes += [Outcome("control_everywhere", 1, False, True, ("It is calm.",), "c")]
    outcomes += [Outcome("control_everywhere", 2, False, False, ("It is calm.",), "d")]
    planted, everywhere = counts(outcomes)
    assert (planted.behaves, planted.found) == (1, wilson(1, 1))
    assert (everywhere.behaves, everywhere.found) == (2, wilson(1, 3))
    assert str(everywhere) == "control_everywhere: found in 1 of 3 (at most 79%), behaviour there in 2."
    assert str(outcomes[3]) == "control_everywhere, seed 2: nothing found: It is calm."


def test_wrong_settings_are_one_sentence():
    with pytest.raises(ValueError, match="'warp'"):
        Config(searches={"warp": 1})
    with pytest.raises(ValueError, match="'searches' is empty"):
        Config(searches={})
    with pytest.raises(ValueError, match="'searches' has 0 of planted"):
        Config(searches={"planted": 0})
