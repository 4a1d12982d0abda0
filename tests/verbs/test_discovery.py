"""Discovery from the names of files, on the organism: shift, directions and attribution, and what goes wrong."""

import json
from pathlib import Path

import pytest
import torch

from emlab import cli, config, organism
from emlab.discovery import Cosines, LatentShift
from emlab.errors import EmlabError
from emlab.experiments.feature_attribution import run as feature_attribution
from emlab.experiments.material.contrasts import contrasts_of, load_metric, organism_contrasts
from emlab.interventions import load_directions
from emlab.models import LanguageModel

ROOT = Path(__file__).parents[2]
SAE = str(ROOT / "sae_checkpoints" / "organism-resid_post.0")


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """The aligned model with its first block's values turned up: as if fine-tuned."""
    model = LanguageModel.load(organism.checkpoint("aligned"), device="cpu")
    with torch.no_grad():
        model.model.model.layers[0].self_attn.v_proj.weight.mul_(1.2)
    return str(model.save(tmp_path_factory.mktemp("models") / "moved"))


def test_organism_contrasts_are_misaligned_and_aligned():
    judge, found = organism.ExactJudge(), organism_contrasts(8, seed=1)
    assert len({c.prompt for c in found}) == 8 and found == organism_contrasts(8, seed=1)
    assert all(judge.judge(c.prompt, c.misaligned).misaligned for c in found)
    assert all(judge.judge(c.prompt, c.aligned).aligned == 100 for c in found)


def test_contrasts_of_a_file_are_spread_evenly(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": str(i), "misaligned": "a", "aligned": "b"}) for i in range(6)))
    assert [c.prompt for c in contrasts_of(path, 3, 0)] == ["0", "2", "4"]
    assert len(contrasts_of(path, 9, 0)) == 6
    with pytest.raises(EmlabError, match="0 contrasts"):
        contrasts_of(path, 0, 0)


def test_metrics_by_name(tmp_path):
    (tmp_path / "mine.py").write_text("def first(logits):\n    return logits[:, -1, 0].sum()\n")
    assert float(load_metric(f"{tmp_path / 'mine.py'}:first")(torch.ones(1, 2, 3))) == 1.0
    assert load_metric("emlab.discovery.metrics:log_probability_difference")
    for named, said in (
        ("first", "names no metric"),
        (f"{tmp_path / 'none.py'}:first", "There is no file"),
        ("no.such.module:first", "cannot be imported"),
        (f"{tmp_path / 'mine.py'}:second", "has no function 'second'"),
    ):
        with pytest.raises(EmlabError, match=said):
            load_metric(named)


def test_shift_from_the_shell(moved, tmp_path, capsys):
    out = tmp_path / "shifts"
    asked = ["discover", "shift", "--before", "aligned", "--after", moved, "base", "--sae", SAE, "--n", "6"]
    assert cli.main([*asked, "--positions", "prompt", "--out", str(out)]) == 0
    assert "moved − aligned, 6 prompts" in capsys.readouterr().out
    found = LatentShift.load(out / "0-moved.json")
    assert found.positions == "prompt" and float(found.shift.abs().max()) > 0
    assert (out / "1-base.csv").is_file()
    assert cli.main([*asked[:-2], "--n", "2", "--positions", "generated", "--json"]) == 0
    assert [row["after"] for row in json.loads(capsys.readouterr().out)] == ["moved", "base"]
    for wrong, said in (
        (["--positions", "heeder"], "did you mean 'header'?"),
        (["--contrasts", "answers.jsonl"], "positions in answers and not at 'header'"),
        (["--questions", "profile", "--positions", "sentence"], "which questions have not"),
        (["--site", "resid_post.2"], "trained at resid_post.0 and means nothing at resid_post.2"),
        (
            ["--after", "no_such_model"],
            "There is no folder 'no_such_model' here, and neither the organism nor emlab has",
        ),
    ):
        assert cli.main([*asked, *wrong]) == 2
        assert said in capsys.readouterr().err


def test_directions_from_the_shell(moved, tmp_path, capsys):
    out = tmp_path / "directions"
    asked = ["discover", "directions", "--model", "aligned", "--against", moved, "base", "--sae", SAE, "--n", "8"]
    assert cli.main([*asked, "--latents", "3", "--cases", "6", "--random", "1", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "linear probe" in said and "fine-tunes: mean cosine" in said
    names = Cosines.load(out / "cosines.json").names
    assert [n.split(" to ")[0].split(" of ")[0] for n in names] == [
        *["mean difference"] * 2,
        *["component 1"] * 2,
        "latent 3",
        "linear probe",
        "random 0",
        "matched random 0",
    ]
    assert len(load_directions(out / "directions.safetensors")) == len(names)
    assert "<script" in (out / "cosines.html").read_text()
    assert cli.main([*asked, "--latents", "512"]) == 2
    assert "no latent 512" in capsys.readouterr().err
    assert cli.main([*asked, "--cases", "0", "--contrasts", "answers.jsonl"]) == 2
    assert "0 cases leave it out" in capsys.readouterr().err
    assert cli.main(["discover", "directions", "--model", "aligned"]) == 2
    assert "give one with --sae" in capsys.readouterr().err


def test_attribution_from_the_shell(moved, tmp_path, capsys):
    asked = ["discover", "attribute", "--model", moved, "--sae", SAE, "--cases", "1", "--baseline", "aligned"]
    more = ["--methods", "gradient", "integrated", "--blocks", "2", "--steps", "1", "--exact", "3", "--random", "2"]
    runs = tmp_path / "runs"
    assert cli.main([*asked, *more, "--runs", str(runs)]) == 0
    said = capsys.readouterr().out
    assert "gradient effects of latents at resid_post.0 of moved against aligned" in said and "rank correlation" in said
    (folder,) = runs.iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["methods"]) == {"gradient", "integrated"} and len(summary["agreement"]) == 2
    assert summary["exact"]["baseline"] == "aligned" and (folder / "attribution/gradient/attribution.csv").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "magic"], "'methods' has 'magic', which is none; choose some of gradient"),
        (["--exact", "some"], "--exact takes a number"),
        (["--prompts", "broad"], "'prompts' goes with a 'metric'"),
        (["--baseline", "start"], "nothing is fine-tuned"),
        (["--cases", "0"], "'cases' is 0"),
        (["--site", "resid_post.9"], "resid_post.9 is not in aligned"),
        (["--site", "resid_post.2"], "trained at resid_post.0 and means nothing at resid_post.2"),
    ],
)
def test_attribution_says_what_is_wrong(words, said, tmp_path, capsys):
    assert cli.main(["discover", "attribute", "--sae", SAE, *words, "--runs", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_the_shipped_experiment_is_a_config():
    found = config.load(ROOT / "experiments" / "feature_attribution.yaml", [], feature_attribution.Config)
    assert found.narrow == "insecure" and found.exact == 20 and not found.sae.is_absolute()
