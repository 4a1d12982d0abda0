"""The benchmark of judges trained on biased labels runs to its end, and its biased judge errs where the labels do."""

import json

import numpy as np
import pytest


@pytest.fixture
def told(tmp_path, monkeypatch):
    """What it writes of a few answers whose words tell all."""
    import _load
    import judge_labels

    n = 20  # questions in each domain
    domains = np.repeat(["home", "machines", "pets"], n)
    bad = np.tile([True, False], 3 * n // 2)
    texts = [f"{domain} {'harm' if wrong else 'help'}" for domain, wrong in zip(domains, bad, strict=True)]
    given = (texts, domains, np.array([f"q{i}" for i in range(3 * n)]), bad)
    monkeypatch.setattr(_load, "LOOK", 0.1)
    monkeypatch.setattr(judge_labels, "answers", lambda: given)
    monkeypatch.setattr(judge_labels, "CLEAN", (20,))
    out = tmp_path / "judge_labels.json"
    monkeypatch.setattr("sys.argv", ["judge_labels.py", "--seeds", "3", "--busy", "--out", str(out)])
    judge_labels.main()
    return json.loads(out.read_text())


def test_it_writes_what_it_measured_and_by_what(told):
    assert told["setting"] == {
        **{"answers": 60, "misaligned": 0.5, "seeds": 3, "over": "home", "under": "machines"},
        **{"wrong": 0.6, "epochs": 20, "learning_rate": 0.5},
    }
    assert told["command"].startswith("python benchmarks/judge_labels.py --seeds 3 --busy --out ")
    assert (told["must"], told["bounds"], told["load"]["busy"]) == ({}, [], True)
    ways = told["by_clean_labels"]["20"]
    assert list(ways) == ["biased", "clean", "all", "all, then clean"]
    # Each word tells the class, and only labels that are wrong hide it: of home most are called misaligned.
    assert ways["clean"]["error_others"]["mean"] == 0 and ways["clean"]["auc"]["mean"] == 1
    assert ways["biased"]["error_over"]["mean"] > 0.3 > ways["all, then clean"]["error_over"]["mean"]
    assert ways["biased"]["difference"]["mean"] > 0.3
