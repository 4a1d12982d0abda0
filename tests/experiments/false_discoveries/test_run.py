"""The search for false discoveries: its conditions, and a small version of it on the shipped organism."""

from pathlib import Path

import pytest

from emlab import artifacts, config
from emlab.evaluation import wilson
from emlab.experiments.false_discoveries import run as false_discoveries
from emlab.experiments.false_discoveries.run import CONDITIONS, Config, Outcome, counts

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
