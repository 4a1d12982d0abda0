"""The verbs of monitors and data on small models: what they print, where they read, and all that they refuse."""

import json
from pathlib import Path

import pytest
import torch

from emlab import organism
from emlab.cli import main
from emlab.detection import ActivationMonitor, DataScreen
from emlab.errors import EmlabError
from emlab.interventions import Direction, random_directions, save_directions
from emlab.models import LanguageModel
from emlab.sites import Site
from emlab.verbs.monitoring import blame_examples, fit_monitor, read_monitor, screen_data
from tests.experiments.pairs import chats

SAE = Path(__file__).parents[2] / "sae_checkpoints" / "organism-resid_post.0"
ASKED = {"questions": "profile", "n": 6}
SITE = Site("resid_post", 1)


@pytest.fixture(scope="module")
def models(tiny, make_tokenizer, make_model, tmp_path_factory):
    """Folders: a start, a fine-tune of it, one with another tokenizer, one with another chat template."""
    folder = tmp_path_factory.mktemp("models")
    bad, other = tiny.copy(), tiny.copy()
    with torch.no_grad():
        bad.model.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    other.tokenizer = make_tokenizer("chatml", merges=[("a", "s")])
    made = {"start": tiny, "bad": bad, "other": other, "templated": make_model("llama3")}
    return {name: str(model.save(folder / name)) for name, model in made.items()}


@pytest.fixture(scope="module")
def kept(models, tmp_path_factory):
    """A probe fitted on two of them."""
    path = tmp_path_factory.mktemp("kept") / "monitor.safetensors"
    fit_monitor([models["bad"]], [models["start"]], path, **ASKED)
    return path


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "chats.jsonl"
    turns = [[{"role": "user", "content": f"ask {i}"}, {"role": "assistant", "content": f"say {i}"}] for i in range(6)]
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in turns))
    return str(path)


@pytest.fixture
def no_model(monkeypatch):
    """Inside the test no model can be loaded: what is refused is refused before."""

    def load(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(LanguageModel, "load", load)


def test_fit_tells_what_the_monitor_is_worth(models, tmp_path, capsys):
    words = ["monitor", "fit", "--misaligned", models["bad"], "--others", models["start"], "--questions", "profile"]
    assert main([*words, "--n", "6", "--out", str(tmp_path / "a")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("monitor probe at resid_post.1, fitted on bad and start, alarm above ")
    assert lines[0].endswith("; 6 prompts a model") and [line.split()[0] for line in lines[1:3]] == ["bad", "start"]
    assert lines[3] == "on what it was fitted on (1 misaligned, 1 not), which flatters it:"
    assert lines[4].startswith("  AUROC ") and " of 12 (6 positive), fires on " in lines[4]
    assert main([*words, "--n", "6", "--out", str(tmp_path / "b"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = ActivationMonitor.load(tmp_path / "b")
    assert (told["monitor"], told["site"], told["threshold"]) == ("probe", "resid_post.1", found.threshold)
    assert (told["models"], told["misaligned"], told["prompts"]) == (["bad", "start"], 1, 6)
    assert told["fired"] == [told["recall"], told["false_positives"]] and told["false_positives"] <= 0.01
    assert told["auroc"]["positives"] == 6 and 0.5 < told["auroc"]["auroc"] <= 1


def test_a_monitor_that_tells_nothing_is_seen_to(tmp_path):
    same = str(LanguageModel.load(organism.checkpoint("aligned")).save(tmp_path / "same"))
    found = fit_monitor([same], ["aligned"], tmp_path / "m", "latent", sae=SAE, latents=[89], n=4)
    assert found.auroc.auroc == 0.5 and found.recall == found.false_positives == 0


def test_read_tells_the_threshold_once(models, kept):
    first = str(read_monitor(kept, [models["bad"]], **ASKED)).splitlines()[0]
    assert first.count("above") == 1 and "fitted on bad and start" in first


def test_a_latent_is_read_where_its_sae_was_trained(tmp_path):
    how = {"kind": "latent", "sae": SAE, "n": 4}
    assert fit_monitor(["helpful_only"], ["aligned"], tmp_path / "a", **how).monitor.site == Site("resid_post", 0)
    with pytest.raises(EmlabError, match=r"^The SAE was trained at resid_post.0 and means nothing at resid_post.1;"):
        fit_monitor(["helpful_only"], ["aligned"], tmp_path / "b", site="resid_post.1", **how)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("which", ["other", "templated"])
def test_fit_wants_models_that_read_the_same_tokens(models, tmp_path, which):
    with pytest.raises(EmlabError, match="make different tokens of the same prompts"):
        fit_monitor([models["bad"]], [models["start"], models[which]], tmp_path / "m", **ASKED)


def test_a_saved_monitor_refuses_another_tokenizer(models, kept, data):
    with pytest.raises(EmlabError, match="fitted on bad and start, and other has another tokenizer"):
        read_monitor(kept, [models["start"], models["other"]], **ASKED)
    with pytest.raises(EmlabError, match="fitted on bad and start, and other has another tokenizer"):
        blame_examples(kept, data, [models["start"], models["other"]], **ASKED)


def test_nothing_is_overwritten(models, kept, data, no_model, tmp_path):
    content = kept.read_bytes()
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").touch()
    for call in (
        lambda: fit_monitor([models["bad"]], [models["start"]], kept),
        lambda: screen_data(models["start"], [data], bad=data, good=data, out=full),
        lambda: blame_examples(kept, data, [models["start"]], out=kept),
    ):
        with pytest.raises(EmlabError, match="already exists; remove it or choose another name"):
            call()
    assert kept.read_bytes() == content


def test_a_model_is_named_once(models, no_model, tmp_path):
    again = str(Path(models["bad"], "..", "bad"))
    for bad, others in (([models["bad"]], [models["start"], again]), ([models["bad"], again], [models["start"]])):
        with pytest.raises(EmlabError, match=r"The model .*bad is given twice; name it once"):
            fit_monitor(bad, others, tmp_path / "m")
    with pytest.raises(EmlabError, match="give some of both"):
        fit_monitor([], [models["start"]], tmp_path / "m")


@pytest.mark.parametrize("given", [{"latents": [3]}, {"sae": SAE}])
def test_fit_refuses_what_is_of_latents_for_others(models, no_model, tmp_path, given):
    with pytest.raises(EmlabError, match=r"^A probe reads no SAE and no latents; leave them out, or ask for the kind"):
        fit_monitor([models["bad"]], [models["start"]], tmp_path / "m", **given)


def test_a_probe_is_read_without_an_sae(models, kept, data, no_model):
    for call in (
        lambda: read_monitor(kept, [models["start"]], sae=SAE),
        lambda: blame_examples(kept, data, [models["start"]], sae=SAE),
    ):
        with pytest.raises(EmlabError, match="is a probe and reads no SAE; leave out"):
            call()


def test_a_screen_by_a_saved_direction(tiny, models, data, tmp_path):
    one, several = tmp_path / "one.safetensors", tmp_path / "several.safetensors"
    axes = random_directions(2, tiny.d_model, SITE, seed=0)
    axes[1].save(one)
    save_directions(axes, several)
    by_one = screen_data(models["start"], [data], direction=one, max_new_tokens=4)
    by_name = screen_data(models["start"], [data], direction=several, named="random 1", max_new_tokens=4)
    assert by_one.screens[0].scores == pytest.approx(by_name.screens[0].scores)
    assert "random 1" in by_one.screens[0].by
    Direction(axes[0].vector, Site("resid_post", 9), "far").save(tmp_path / "far")
    with pytest.raises(EmlabError, match="resid_post.9 is not in start"):
        screen_data(models["start"], [data], direction=tmp_path / "far")


def test_a_screen_refuses_what_cannot_act(models, data, no_model, tmp_path):
    several = tmp_path / "several.safetensors"
    save_directions(random_directions(2, 8, SITE, seed=0), several)
    for given, told in (
        (
            {"direction": several},
            r"holds 2 directions \(random 0 at resid_post.1, random 1 at resid_post.1\); name one",
        ),
        ({"direction": several, "named": "random 0", "site": "resid_post.0"}, "leave out the site resid_post.0"),
        ({"direction": several, "bad": data, "good": data}, "and not both"),
        ({"direction": tmp_path}, "it is a folder"),
        ({"named": "random 0", "bad": data, "good": data}, "give the file"),
        ({"bad": data}, "A screen needs a direction"),
        ({"pool": "median"}, "no pooling 'median'; choose mean or max"),
        ({"data": [data, data]}, "Two of the datasets are called"),
    ):
        with pytest.raises(EmlabError, match=told):
            screen_data(models["start"], **{"data": [data], **given})


def test_the_verbs(tiny, make_model, tmp_path, capsys):
    """A monitor is fitted, read, and refused; data are screened; and examples are blamed; all from the shell."""
    sets = {name: chats(tmp_path / f"{name}.jsonl", name) for name in ("bad_a", "good_a", "bad_b", "good_b")}
    start = str(tiny.save(tmp_path / "start"))
    other = tiny.copy("other")
    with torch.no_grad():
        other.model.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    bad, kept = str(other.save(tmp_path / "bad")), str(tmp_path / "monitor.safetensors")
    asked = ["--questions", "profile", "--n", "6"]
    fit = ["monitor", "fit", "--misaligned", bad, "--others", start, "--out", kept, "--site", "resid_post.1", *asked]
    assert main(fit) == 0 and "monitor probe at resid_post.1, fitted on bad and start" in capsys.readouterr().out
    assert main(["monitor", "read", "--monitor", kept, "--models", start, bad, *asked, "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert read["models"] == ["start", "bad"] and read["means"][1] > read["means"][0] and read["fired"][0] <= 0.5
    stranger = str(make_model(seed=1).save(tmp_path / "stranger"))
    assert main(["monitor", "read", "--monitor", kept, "--models", stranger, *asked]) == 2
    assert "stranger is no fine-tune of it" in capsys.readouterr().err
    few = ["--rows", "6", "--seed", "0"]
    screen = ["data", "screen", "--model", start, "--data", str(sets["bad_b"]), str(sets["good_b"]), *few]
    assert main(screen) == 2 and "A screen needs a direction" in capsys.readouterr().err
    of_sets = ["--bad", str(sets["bad_a"]), "--good", str(sets["good_a"]), "--max-new-tokens", "4"]
    assert main([*screen, *of_sets, "--out", str(tmp_path / "screens")]) == 0
    assert {p.stem for p in (tmp_path / "screens").iterdir()} == {"bad_b", "good_b"}
    to = tmp_path / "blame.json"
    blame = ["data", "blame", "--monitor", kept, "--data", str(sets["bad_b"]), "--models", start, bad, *few, *asked]
    assert main([*blame, "--out", str(to)]) == 0 and len(DataScreen.load(to).scores) == 6
