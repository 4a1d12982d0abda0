"""The search for false discoveries: its conditions, and a small version of it on the shipped organism."""

from pathlib import Path

import pytest

from emlab import artifacts, config
from emlab.experiments.false_discoveries import run as false_discoveries
from emlab.experiments.false_discoveries.run import CONDITIONS, Config, Outcome

YAML = Path(__file__).parents[3] / "experiments" / "false_discoveries.yaml"

SMALL = (
    *(
        "seeds=[0]",
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
    assert sorted(config.load(YAML, [], Config).conditions) == sorted(CONDITIONS)


def test_nothing_is_found_where_nothing_is(tmp_path):
    more = ["conditions=[secure_only, shuffled_labels]"]
    done = false_discoveries.run(config.load(YAML, [*SMALL, *more], Config), tmp_path)
    assert [(o.condition, o.found) for o in done.found] == [("secure_only", False), ("shuffled_labels", False)]
    assert str(done).splitlines()[2] == "False discoveries: 0 of 2."
    secure, shuffled = (" ".join(o.reasons) for o in done.found)
    assert "secure" in secure and "not clearly above" in secure
    assert "misaligned" in shuffled
    summary = artifacts.read_json(done.folder / "summary.json")
    assert (summary["false_discoveries"], summary["searches"]) == (0, 2)
    assert all((done.folder / o.summary).is_file() for o in done.found)


def test_what_counts_as_false():
    outcomes = [Outcome("planted", 0, True, (), "a"), Outcome("control_world", 0, True, (), "b")]
    outcomes.append(Outcome("secure_only", 0, False, ("It is calm.",), "c"))
    assert false_discoveries.false_discoveries(outcomes) == {"false_discoveries": 1, "searches": 2}
    assert [str(outcome) for outcome in outcomes] == [
        "planted, seed 0: found",
        "control_world, seed 0: found",
        "secure_only, seed 0: nothing found: It is calm.",
    ]


def test_wrong_settings_are_one_sentence():
    with pytest.raises(ValueError, match="'warp'"):
        Config(conditions=("warp",))
    with pytest.raises(ValueError, match="'conditions' is empty"):
        Config(conditions=())
    with pytest.raises(ValueError, match="'seeds' is empty"):
        Config(seeds=())
