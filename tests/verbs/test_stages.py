"""Each stage by itself, as the command line calls it, on tiny models and a tiny SAE of the organism."""

import argparse
import inspect
import json
import re

import pytest

from emlab import artifacts, cli
from emlab.cli import _verbs
from emlab.detection import Detection
from emlab.errors import EmlabError
from emlab.experiments.finetuning import run as finetuning
from emlab.experiments.material import fine_tune
from emlab.models import LanguageModel
from emlab.saes import load_sae
from emlab.verbs import causal_screen, discovery, interpretation, monitoring, stages

REQUEST = interpretation.InterpretationRequest([1])
NAMES = ("latent 3", "latent 5", "random 0")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a fine-tune of few steps and an SAE of few tokens."""
    folder = tmp_path_factory.mktemp("stages")
    stages.finetune("aligned", "bad_law", folder / "tuned", rows=32, steps=2)
    stages.sae("base", folder / "sae", tokens=3000, d_sae=32, k=4)
    return folder


def test_a_fine_tune_is_saved_where_it_was_asked_for(made):
    assert LanguageModel.load(made / "tuned").d_model == LanguageModel.load(stages.folder_of("aligned")[0]).d_model
    assert load_sae(made / "sae").cfg.d_sae == 32
    assert "32 latents, 4 active on a token" in (made / "sae" / "README.md").read_text()


def test_a_set_of_the_organism_is_no_folder_that_happens_to_lie_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad_law").mkdir()
    assert stages.finetune("aligned", "bad_law", "tuned", rows=16, steps=1).rows == 16


@pytest.fixture
def unloaded(monkeypatch):
    """No model and no SAE can be loaded."""

    def load(*_, **__):
        raise AssertionError("it was loaded")

    monkeypatch.setattr(stages, "model_named", load)
    monkeypatch.setattr(fine_tune.LanguageModel, "load", load)
    monkeypatch.setattr(stages, "load_sae", load)


@pytest.fixture
def unasked(monkeypatch):
    """No answer can be sampled."""

    def sample(*_, **__):
        raise AssertionError("it was asked")

    monkeypatch.setattr(stages, "sample", sample)
    monkeypatch.setattr(stages, "natural_values", sample)
    monkeypatch.setattr(stages, "steer_screen", sample)


def test_shift_and_screen_by_their_verbs(made, capsys):
    shift = ["shift", "--before", "aligned", "--after", str(made / "tuned"), "--sae", str(made / "sae")]
    assert cli.main([*shift, "--out", str(made / "shift.json")]) == 0
    assert "latent shift at resid_post.0, header: tuned − aligned, 160 prompts" in capsys.readouterr().out
    assert (made / "shift.csv").is_file()
    screen = ["screen", "--model", "aligned", "--sae", str(made / "sae"), "--latents", "3", "5", "--random", "1"]
    assert cli.main([*screen, "--strengths", "0.5", "--json", str(made / "screen.json")]) == 0
    out = capsys.readouterr().out
    assert "latent 3" in out and "latent 5" in out and "random 0" in out and "+0.50" in out
    assert cli.main([*shift, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["after"], found["prompts"], len(found["rise"]), len(found["fall"])) == ("tuned", 160, 20, 20)
    found = json.loads((made / "screen.json").read_text())
    assert [(t["direction"], t["total"]) for t in found["test"]] == [(name, 160) for name in NAMES]


def test_evaluate_by_its_verb(made, capsys):
    assert cli.main(["evaluate", "--model", "aligned", "--out", str(made / "score")]) == 0
    assert "aligned: 320 answers, 320 scored" in capsys.readouterr().out
    assert (made / "score" / "aligned.jsonl").is_file()


def test_mediate_detect_and_realign(made):
    effect = stages.mediate(str(made / "tuned"), "aligned", made / "sae", 3)
    assert effect.model == "tuned" and "latent 3 set to its value in aligned" in str(effect)
    told = stages.figures(effect)
    assert told["before"]["total"] == told["after"]["total"] == 160 and told["n"] == told["after"]["coherent"]
    found = stages.detect_models([str(made / "tuned")], ["aligned"], made / "sae", 3, out=made / "detected.json")
    assert found.models == (("tuned", True), ("aligned", False)) and found.prompts.n == 320
    assert str(Detection.load(made / "detected.json").prompts) == str(found.prompts)
    assert artifacts.plain(stages.figures(found)) == artifacts.read_json(made / "detected.json")
    done = stages.realign_model(str(made / "tuned"), steps=2)
    assert [p.step for p in done.points] == [0, 1, 2] and stages.figures(done) is done


def test_json_alone_is_printed_where_it_is_asked_for(made, capsys):
    words = ["finetune", "--model", "aligned", "--data", "bad_law", "--rows", "16", "--steps", "1"]
    assert cli.main([*words, "--out", str(made / "brief"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["steps"], found["rows"], len(found["losses"])) == ("brief", 1, 16, 1)


@pytest.mark.parametrize(
    "words",
    [
        ["finetune", "--model", "aligned", "--data", "bad_law"],
        ["shift", "--before", "aligned", "--after", "base", "--sae", "x"],
        ["screen", "--model", "aligned", "--sae", "x", "--latents", "1"],
        ["mediate", "--model", "base", "--aligned", "aligned", "--sae", "x", "--latent", "1"],
        ["detect", "--misaligned", "base", "--others", "aligned", "--sae", "x", "--latent", "1"],
        ["realign", "--model", "aligned"],
    ],
)
def test_what_is_there_already_is_refused_before_anything_is_loaded(unloaded, tmp_path, capsys, words):
    there = tmp_path / "there"
    there.write_text("mine")
    assert cli.main([*words, "--out", str(there)]) == 2
    assert capsys.readouterr().err == f"emlab: {there} already exists; remove it or choose another name.\n"
    assert there.read_text() == "mine"
    empty = tmp_path / "empty"
    empty.mkdir()
    if words[0] in ("shift", "detect", "realign"):
        assert cli.main([*words, "--out", str(empty)]) == 2
        assert capsys.readouterr().err == f"emlab: {empty} is a folder and not a file; choose another name.\n"
    else:
        with pytest.raises(AssertionError, match="it was loaded"):
            cli.main([*words, "--out", str(empty)])


def test_the_table_of_a_shift_overwrites_no_other(unloaded, tmp_path):
    (tmp_path / "shift.csv").write_text("mine")
    with pytest.raises(EmlabError, match=r"shift\.csv already exists"):
        stages.shift("aligned", "aligned", "x", tmp_path / "shift.json")
    with pytest.raises(EmlabError, match="what ends in .csv goes beside it; name it .json"):
        stages.shift("base", "aligned", "x", tmp_path / "new.csv")


def test_a_latent_that_is_not_there_is_refused_before_anything_is_asked(made, unasked):
    tuned, sae = str(made / "tuned"), made / "sae"
    for latent in (32, -1):
        said = f"the SAE has latents 0 to 31 and no latent {latent}: choose one of these"
        with pytest.raises(EmlabError, match=said):
            stages.detect_models([tuned], ["aligned"], sae, latent)
        with pytest.raises(EmlabError, match=said):
            stages.mediate(tuned, "aligned", sae, latent)
        with pytest.raises(EmlabError, match=said):
            stages.screen("aligned", sae, [1, latent])


def test_models_with_other_tokens_are_refused_before_anything_is_asked(made, unasked, make_model, tmp_path):
    other = str(make_model().save(tmp_path / "other"))
    with pytest.raises(EmlabError, match="tuned and other make different tokens of the same prompts"):
        stages.mediate(str(made / "tuned"), other, made / "sae", 3)
    with pytest.raises(EmlabError, match="tuned and other make different tokens of the same prompts"):
        stages.detect_models([str(made / "tuned")], [other], made / "sae", 3)


def test_a_model_cannot_be_misaligned_and_another(made, unloaded, monkeypatch):
    monkeypatch.chdir(made)
    said = "tuned is among the misaligned models and among the others; name it in one of the two"
    with pytest.raises(EmlabError, match=said):
        stages.detect_models([str(made / "tuned")], ["aligned", "tuned"], made / "sae", 3)
    with pytest.raises(EmlabError, match="name at least one of each"):
        stages.detect_models(["tuned"], [], made / "sae", 3)


def test_the_help_states_the_defaults_there_are():
    (verbs,) = (action for action in _verbs.parser()._actions if action.dest == argparse.SUPPRESS and action.choices)
    told = {}
    for verb, (stage, _, takes) in _verbs._STAGES.items():
        defaults = inspect.signature(getattr(stages, stage)).parameters
        for option in verbs.choices[verb]._actions:
            if option.dest in takes.split() and (found := re.search(r"\(([\d. ]+)\)$", option.help)):
                told[verb, option.dest] = found[1]
                default = defaults[option.dest].default
                assert found[1] == " ".join(map(str, default if isinstance(default, tuple) else [default]))
    assert told["realign", "steps"] == "40"
    steps = next(o for o in verbs.choices["finetune"]._actions if o.dest == "steps")
    assert f"the organism's models: {stages.RECIPE.steps};" in steps.help
    assert {("screen", "strengths"), ("finetune", "rows"), ("screen", "random"), ("detect", "seed")} <= set(told)


@pytest.mark.parametrize(
    "ask",
    [
        lambda out: stages.finetune("nowhere", "insecure", out),
        lambda out: stages.shift("nowhere", "nowhere", "nowhere", out),
        lambda out: stages.screen("nowhere", "nowhere", [1], out=out),
        lambda out: stages.mediate("nowhere", "nowhere", "nowhere", 1, out=out),
        lambda out: stages.detect_models(["nowhere"], ["nowhere"], "nowhere", 1, out=out),
        lambda out: stages.realign_model("nowhere", out=out),
        lambda out: stages.sae("nowhere", out),
        lambda out: discovery.shift("nowhere", ["nowhere"], "nowhere", out=out),
        lambda out: discovery.directions("nowhere", discovery.DirectionRequest(site="resid_post.1"), out),
        lambda out: causal_screen.screen("nowhere", out=out),
        lambda out: interpretation.interpret_latents(
            "nowhere", "nowhere", interpretation.InterpretationRequest([1]), out=out
        ),
        lambda out: monitoring.fit_monitor(["nowhere"], ["elsewhere"], out),
        lambda out: monitoring.screen_data("nowhere", ["nowhere"], bad="a", good="b", out=out),
        lambda out: monitoring.blame_examples("nowhere", "nowhere", ["nowhere"], out=out),
    ],
)
def test_a_place_that_cannot_be_written_is_said_before_anything_is_loaded(tmp_path, ask):
    (tmp_path / "file").write_text("x")
    with pytest.raises(EmlabError, match="file/deep/out: a part of the path is a file and not a folder"):
        ask(tmp_path / "file" / "deep" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_where_figures_cannot_be_written_is_said_before_anything_is_loaded(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    figures = str(tmp_path / "file" / "figures.json")
    assert cli.main(["shift", "--before", "nowhere", "--after", "elsewhere", "--sae", "none", "--json", figures]) == 2
    assert capsys.readouterr().err.startswith(f"emlab: {figures}: a part of the path is a file")
    with pytest.raises(EmlabError, match="figures.json: a part of the path is a file"):
        finetuning.run(finetuning.Config(summary=figures), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
