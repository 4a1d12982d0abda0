"""What a run is known by: a file that changes makes another run, and one that is missing is refused."""

import pytest

from emlab.errors import EmlabError
from emlab.experiments.finetuning import run as finetuning
from emlab.experiments.finetuning.config import TrainingArm
from emlab.experiments.finetuning.stages import inputs_of
from emlab.experiments.material.inputs import content_of
from emlab.experiments.reinforcement_learning import run as reinforcement_learning


@pytest.mark.parametrize("run", [finetuning, reinforcement_learning], ids=["finetuning", "reinforcement_learning"])
def test_questions_that_change_make_another_run(run, tmp_path):
    asked = tmp_path / "asked.csv"
    config = run.Config(question_set=str(asked))
    found = []
    for text in ("Who are you?", "Who is there?"):
        asked.write_text(f"question\n{text}\n")
        found.append(run.inputs_of(config))
    assert found[0].keys() == found[1].keys() and found[0] != found[1]
    assert [key for key in found[0] if found[0][key] != found[1][key]] == ["questions"]


def test_a_dataset_is_known_by_its_content_and_one_on_the_hub_by_its_name(tmp_path):
    data = tmp_path / "mine.jsonl"
    config = finetuning.Config(arms=(TrainingArm("mine", str(data)),))
    with pytest.raises(EmlabError, match=r"^There is no file \S+mine\.jsonl, which an arm is trained on; put it back"):
        inputs_of(config)
    data.write_text("{}\n")
    before = inputs_of(config)
    data.write_text("{} \n")
    assert inputs_of(config)[str(data)] != before[str(data)]
    assert content_of("org/nowhere") == "org/nowhere"
    assert content_of(tmp_path) != content_of(tmp_path / "mine.jsonl")
