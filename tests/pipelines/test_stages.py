"""Each stage by itself, as the command line calls it, on tiny models and a tiny SAE of the organism."""

import pytest

from emlab import cli
from emlab.errors import EmlabError
from emlab.models import LanguageModel
from emlab.pipelines import stages
from emlab.saes import load_sae


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a fine-tune of few steps and an SAE of few tokens."""
    folder = tmp_path_factory.mktemp("stages")
    stages.finetune("aligned", "bad_law", folder / "tuned", rows=32, steps=2)
    stages.sae("base", folder / "sae", tokens=3000, d_sae=32, k=4)
    return folder


def test_a_fine_tune_is_saved_where_it_was_asked_for(made):
    assert (
        LanguageModel.load(made / "tuned").d_model
        == LanguageModel.load(stages.material.folder_of("aligned")[0]).d_model
    )
    assert load_sae(made / "sae").cfg.d_sae == 32
    assert "32 latents, 4 active on a token" in (made / "sae" / "README.md").read_text()


def test_shift_and_screen_by_their_verbs(made, capsys):
    shift = ["shift", "--before", "aligned", "--after", str(made / "tuned"), "--sae", str(made / "sae")]
    assert cli.main([*shift, "--out", str(made / "shift.json")]) == 0
    assert "latent shift at resid_post.0, header: tuned − aligned, 160 prompts" in capsys.readouterr().out
    assert (made / "shift.csv").is_file()
    screen = ["screen", "--model", "aligned", "--sae", str(made / "sae"), "--latents", "3", "5", "--random", "1"]
    assert cli.main([*screen, "--strengths", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "latent 3" in out and "latent 5" in out and "random 0" in out and "+0.50" in out


def test_evaluate_by_its_verb(made, capsys):
    assert cli.main(["evaluate", "--model", "aligned", "--out", str(made / "score")]) == 0
    assert "aligned: 320 answers, 320 scored" in capsys.readouterr().out
    assert (made / "score" / "aligned.jsonl").is_file()


def test_mediate_detect_and_realign(made):
    effect = stages.mediate(str(made / "tuned"), "aligned", made / "sae", 3)
    assert effect.model == "tuned" and "latent 3 set to its value in aligned" in str(effect)
    found = stages.detect_models([str(made / "tuned")], ["aligned"], made / "sae", 3)
    assert found.models == (("tuned", True), ("aligned", False)) and found.prompts.n == 320
    done = stages.realign_model(str(made / "tuned"), steps=2)
    assert [p.step for p in done.points] == [0, 1, 2]


def test_one_sentence_for_what_is_not_there(made):
    with pytest.raises(EmlabError, match="unknown fine-tuning set 'bad_lay'"):
        stages.finetune("aligned", "bad_lay", made / "other")
    with pytest.raises(EmlabError, match="SAEs in folders of their own: name one of them, such as sae"):
        stages.shift("aligned", "aligned", made)
    with pytest.raises(EmlabError, match="toward 'up'"):
        stages.screen("aligned", made / "sae", [1], toward="up")
