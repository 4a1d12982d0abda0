"""What a run would take, by hand; what this machine has."""

import pytest

from emlab import cli
from emlab.errors import EmlabError
from emlab.models import places
from emlab.verbs import planning

CONFIG = "experiments/persona_features.yaml"


def test_of_an_experiment_that_was_measured_the_stages_and_their_seconds_are_told(tmp_path):
    found = planning.plan(CONFIG, runs=tmp_path)
    assert found.pipeline == "persona_features" and "No run of the name persona_features" in found.state
    assert "screen/plus" in found.stages and found.seconds > sum(found.stages.values()) * 0.9
    assert found.needs["memory"][0] > 0 and found.holds
    assert found.source.startswith("as it ships, on ") and f"{found.seconds / 60:.0f} minutes, as it ships" in str(
        found
    )


def test_of_a_suite_the_parts_and_what_its_config_says(tmp_path):
    found = planning.plan("experiments/real/smollm2-135m-instruct.yaml", runs=tmp_path)
    assert list(found.stages)[:2] == ["sets", "goblins"] and found.seconds == sum(found.stages.values())
    assert found.source == "as its config says" and found.needs["memory"][0] == 6e9 and found.needs["disk"][0] == 2e9


def test_what_does_not_fit_is_told_and_is_the_exit_code(tmp_path, capsys, monkeypatch):
    words = ["run", "experiments/real/smollm2-135m-instruct.yaml", "--dry-run", "--runs", str(tmp_path / "runs")]
    assert cli.main([*words, "memory=1e9"]) == 1
    said = capsys.readouterr().out
    assert "of memory" in said and "That is too little." in said and not (tmp_path / "runs").exists()


def test_a_wrong_config_is_refused_as_by_the_run(tmp_path):
    with pytest.raises(EmlabError, match="seeed"):
        planning.plan(CONFIG, ["seeed=1"], tmp_path)


def test_the_doctor_names_what_is_missing_and_how_it_is_installed(monkeypatch, capsys):
    monkeypatch.setattr(planning, "OPTIONAL", {"no_such_package": ("trl", "reinforcement learning")})
    found = planning.doctor()
    assert found.missing == {"no_such_package": 'reinforcement learning (pip install "emergent-misalignment-lab[trl]")'}
    assert found.holds and found.device in str(found) and found.memory > 0
    assert cli.main(["doctor", CONFIG]) == 0
    assert "persona_features" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_the_verbs(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    said = capsys.readouterr().out
    assert all(verb in said for verb in ("finetune", "doctor", "keep-stages"))


def test_nothing_is_fetched(monkeypatch, tmp_path):
    def fetch(*_):
        raise AssertionError("it was fetched")

    monkeypatch.setattr(places, "from_hub", fetch)
    monkeypatch.setattr(places, "get_model", fetch)
    monkeypatch.setattr(planning, "cached", lambda name: tmp_path / "nowhere")
    for config in ("experiments/real/qwen2.5-7b-instruct.yaml", "experiments/real/smollm2/goblins.yaml"):
        found = planning.plan(config, runs=tmp_path)
        assert "memory" not in found.needs and "not known before its model is here" in str(found)
