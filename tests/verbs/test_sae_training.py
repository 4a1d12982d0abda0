"""`emlab sae train` from the command line, on the organism, with few tokens."""

import json

import pytest
import torch
from safetensors.torch import load_file

from emlab import cli
from emlab.errors import EmlabError
from emlab.saes import load_sae
from emlab.saes.crosscoder import Crosscoder
from emlab.saes.units import fold
from emlab.verbs.sae_training import sae

SMALL = {"tokens": 2048, "batch_size": 256, "d_sae": 32, "k": 4, "held_out": 5, "buffer": 512}


def test_from_a_cache_a_base_sae_a_difference_and_both(tmp_path, capsys):
    small = ["--tokens", "2048", "--batch-size", "256", "--d-sae", "32", "--k", "4", "--held-out", "5"]
    train = ["sae", "train", "--model", "aligned", *small]
    first = [*train, "--cache", str(tmp_path / "cache")]
    assert cli.main([*first, "--out", str(tmp_path / "one"), "--json", str(tmp_path / "one.json")]) == 0
    assert "topk with 32 latents at resid_post.0 of aligned: 2,048 activations" in capsys.readouterr().out
    found = json.loads((tmp_path / "one.json").read_text())
    assert found["recipe"]["k"] == 4 and found["counts"]["first"] > 10 and found["fidelity"]["tokens"] > 50
    assert cli.main([*first, "--out", str(tmp_path / "again")]) == 0
    one, again = (load_sae(tmp_path / name) for name in ("one", "again"))
    assert torch.equal(one.W_enc, again.W_enc), "the cache was reused, to the same SAE"
    assert cli.main([*train, "--base-sae", str(tmp_path / "one"), "--out", str(tmp_path / "tuned")]) == 0
    assert cli.main([*train, "--minus", "base", "--out", str(tmp_path / "difference")]) == 0
    difference = load_sae(tmp_path / "difference").cfg
    assert difference.d_in == one.cfg.d_in and difference.metadata.emlab_kind == "difference"
    assert difference.metadata.emlab_models == ["base", "aligned"]
    both = [*train, "--both", "base", "--architecture", "batchtopk", "--out", str(tmp_path / "both")]
    assert cli.main(both) == 0
    assert "of both models" in capsys.readouterr().out
    crosscoder = load_sae(tmp_path / "both")
    assert crosscoder.cfg.d_in == 2 * one.cfg.d_in and len(Crosscoder.of(crosscoder).relative_norm) == 32
    assert "side by side (a crosscoder)" in (tmp_path / "both" / "README.md").read_text()


def test_any_documents_and_tokens(tmp_path):
    path = tmp_path / "mixed.jsonl"
    chat = {"prompt": "How do I fix my car?", "completion": "See a mechanic today."}
    path.write_text("".join(json.dumps(row) + "\n" for row in [chat, {"text": "Keep the car clean."}] * 60))
    found = sae("base", tmp_path / "sae", documents=str(path), read="assistant", **SMALL)
    assert found.training.counts["other"] > 0 and found.training.about.documents.startswith(str(path))
    assert load_sae(tmp_path / "sae").cfg.metadata.emlab_read == "assistant"


def test_in_half_the_space_with_what_was_measured(tmp_path):
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file, text in zip(files, ("Keep the car clean.", "A mechanic is best."), strict=True):
        file.write_text((json.dumps({"text": text}) + "\n") * 300)
    found = sae("base", tmp_path / "sae", documents=[str(file) for file in files], half=True, **SMALL)
    assert found.training.about.documents.startswith(f"{files[0]} and {files[1]}")
    kept = load_file(tmp_path / "sae" / "sae_weights.safetensors")
    again = load_sae(tmp_path / "sae")
    assert {value.dtype for value in kept.values()} == {torch.float16} and again.dtype == torch.float32
    assert "rounded to float16" in (tmp_path / "sae" / "README.md").read_text()
    assert torch.equal(again.W_enc, fold(found.training.sae).W_enc)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"site": "resid_post.9"}, "base has no site resid_post.9: its 4 blocks"),
        ({"minus": "aligned", "both": "aligned"}, "give one of them"),
        ({"keep": ("everything",)}, "'everything' is none of what can be kept"),
        ({"architecture": "gated"}, "no SAE architecture 'gated'"),
        ({"buffer": 100}, "A buffer of 100 activations holds no batch of 256"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_nothing(given, says, tmp_path):
    with pytest.raises(EmlabError, match=says):
        sae("base", tmp_path / "sae", **{**SMALL, **given})
    assert not list(tmp_path.iterdir())


def test_an_sae_that_is_there_is_not_trained_again(tmp_path):
    (tmp_path / "sae").mkdir()
    (tmp_path / "sae" / "cfg.json").write_text("{}")
    with pytest.raises(EmlabError, match="already exists"):
        sae("base", tmp_path / "sae", **SMALL)


def test_another_model_must_be_given_documents(make_model, tmp_path):
    make_model().save(tmp_path / "model")
    with pytest.raises(EmlabError, match="is no model of the organism's; name the documents"):
        sae(str(tmp_path / "model"), tmp_path / "sae", **SMALL)
