"""`emlab sae check` on the organism: its SAE describes its models, and not a model it was never made for."""

import json
from pathlib import Path

import pytest

from emlab.cli import main
from emlab.errors import EmlabError
from emlab.verbs.sae_check import check

SHIPPED = Path(__file__).parents[2] / "sae_checkpoints" / "organism-resid_post.0"


def command(*words):
    return main(["sae", "check", *words])


def test_the_shipped_sae_describes_base_and_aligned_model(tmp_path, capsys):
    to = tmp_path / "check.json"
    assert command(str(SHIPPED), "--model", "base", "aligned", "--n", "12", "--json", str(to)) == 0
    said = capsys.readouterr().out
    assert "The SAE describes every model." in said and "holds  aligned, header" in said
    figures = json.loads(to.read_text())
    assert figures["holds"] and list(figures["models"]) == ["base", "aligned"]
    base, aligned = (figures["models"][name]["all"] for name in ("base", "aligned"))
    assert base["explained_variance"]["value"] > 0.9 and base["l0"]["value"] == pytest.approx(16, abs=0.01)
    assert aligned["documents"] == 12 and aligned["explained_variance"]["value"] > 0.85


def test_bounds_decide_and_the_exit_code_tells(capsys):
    assert command(str(SHIPPED), "--model", "base", "--n", "4", "--least-variance", "0.999") == 1
    assert "less than 100% explained" in capsys.readouterr().out


def test_it_reads_a_dataset_of_ones_own(tmp_path):
    chats = tmp_path / "chats.jsonl"
    turns = [[{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": "no"}] for i in range(5)]
    chats.write_text("".join(json.dumps({"messages": each}) + "\n" for each in turns))
    found = check(SHIPPED, ["base"], documents=str(chats), n=3)
    assert found.models[0].classes["header"].tokens == 3


def test_what_is_wrong_is_said_before_anything_is_read(tmp_path):
    with pytest.raises(EmlabError, match="named twice"):
        check(SHIPPED, ["base", "base"])
    with pytest.raises(EmlabError, match="no model to check"):
        check(SHIPPED, [])
    with pytest.raises(EmlabError, match="'most_drop' is"):
        check(SHIPPED, ["base"], most_drop=-1)
    with pytest.raises(EmlabError, match="neither a folder nor an SAE"):
        check(tmp_path / "none", ["base"])
