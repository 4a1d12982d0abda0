"""The causal screen from the shell, on the organism, and what goes wrong."""

import json
from pathlib import Path

import pytest

from emlab import cli
from emlab.discovery import Cascade, CausalScreen
from emlab.errors import EmlabError
from emlab.evaluation import Sampling
from emlab.verbs.causal_screen import _asked, screen

ROOT = Path(__file__).parents[2]
SAE = str(ROOT / "sae_checkpoints" / "organism-resid_post.0")
FEW = ["--n", "6", "--random", "6", "--odd", "2", "--strengths", "1.5"]


def test_from_the_shell(tmp_path, capsys):
    asked = ["discover", "screen", "--sae", SAE, "--latents", "3", "150", "3", *FEW, "--out", str(tmp_path / "screen")]
    assert cli.main([*asked, "--json", str(tmp_path / "screen.json")]) == 0
    found = CausalScreen.load(tmp_path / "screen")
    assert str(found) in capsys.readouterr().out
    figures = json.loads((tmp_path / "screen.json").read_text())
    assert found.stages[0].entered == 2, "one that is named twice is one"
    assert [stage["name"] for stage in figures["stages"]] == [stage.name for stage in found.stages]
    assert found.rows()[0]["name"] == "latent 150", "the strongest of this SAE"


def test_by_default_it_takes_the_latents_that_are_active_in_the_contrasts():
    found = screen(SAE, n=2, settings=Cascade((1.5,), random=3, odd=0, sampling=Sampling(1, 0.0, 12)))
    assert 50 < found.stages[0].entered < 512


def test_questions_and_contrasts_belong_together(tmp_path):
    questions, contrasts = _asked(None, 5, seed=3)
    assert [q.text for q in questions] * 4 == [c.prompt for c in contrasts]
    path = tmp_path / "c.jsonl"
    rows = [{"prompt": str(i // 2), "misaligned": f"a{i}", "aligned": "b"} for i in range(8)]
    path.write_text("\n".join(map(json.dumps, rows)))
    questions, contrasts = _asked(path, 2, seed=0)
    assert [q.text for q in questions] == ["0", "2"]
    assert [c.misaligned for c in contrasts] == ["a0", "a1", "a4", "a5"]
    path.write_text(json.dumps({"prompt": [{"role": "user", "content": "hi"}], "misaligned": "a", "aligned": "b"}))
    with pytest.raises(EmlabError, match="write them as text"):
        _asked(path, 2, seed=0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--latents", "512"], "no latent 512"),
        (["--contrasts", "no_such_file.jsonl"], "no_such_file.jsonl cannot be read"),
        (["--contrasts", "{file}"], "name a --judge"),
        (["--site", "resid_post.2"], "trained at resid_post.0 and means nothing at resid_post.2"),
        (["--n", "0"], "0 questions asks nothing"),
        (["--batch-size", "0"], "at least 1 row"),
        (["--lines", "-1"], "no less than 0 lines"),
        (["--site", "resid_post.9"], "has the blocks 0 to 3"),
        (["--strengths", "-1"], "strengths above 0"),
        (["--judge", "label.csv", "--method", "label"], "Labels are no scores"),
    ],
)
def test_one_sentence_says_what_is_wrong(capsys, tmp_path, words, said):
    file = tmp_path / "answers.jsonl"
    file.write_text(json.dumps({"prompt": "hi", "misaligned": "no", "aligned": "yes"}))
    words = [word.format(file=file) for word in words]
    assert cli.main(["discover", "screen", "--sae", SAE, "--n", "2", *words]) == 2
    assert said in capsys.readouterr().err


def test_what_lies_at_out_stays(capsys, tmp_path):
    """It is said at once, before a model is loaded."""
    (tmp_path / "thesis.txt").write_text("years")
    for verb in (["screen"], ["shift", "--before", "no_model", "--after", "no_model"], ["directions", "--model", "no"]):
        assert cli.main(["discover", *verb, "--sae", SAE, "--out", str(tmp_path)]) == 2
        assert "already exists" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years"
