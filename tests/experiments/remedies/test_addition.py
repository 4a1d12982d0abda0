"""A remedy is one file: another package's own, known by an entry point, is tried beside emlab's."""

import os
import subprocess
import sys
from pathlib import Path

from emlab import artifacts
from tests.packages import example, install

ROOT = Path(__file__).parents[3]


def test_a_remedy_of_another_package_is_compared(tmp_path):
    install(tmp_path, "my_remedies", example("shorter_training.py"))
    small = [
        *("seeds=[0]", "rows=24", "recipe.steps=3", "recipe.batch_size=2", "questions=4", "trial_questions=2"),
        *("answers.max_new_tokens=6", "documents=4", "source=[bad_law]", "sae=null", "random=[]"),
        *("arms=[{name: insecure, data: insecure, relapse: 0}]", "remedies=[ShorterTraining, Inoculation, Steering]"),
        "dials={Steering: [0.6]}",
    ]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    asked = [sys.executable, "-m", "emlab", "mitigate", "compare", *small, "--runs", str(tmp_path / "runs")]
    done = subprocess.run(asked, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    summary = artifacts.read_json(run / "summary.json")
    rows = {row["remedy"]: row for row in summary["arms"]["insecure"]}
    # Those that treat the model stand first; of those that train anew, emlab's own before others'.
    assert list(rows) == ["start", "untreated", "steering", "inoculation prompting", "shorter training"]
    mine = rows["shorter training"]
    assert mine["setting"] in ("steps 2", "steps 1") and summary["config"]["dials"]["ShorterTraining"] == [2, 1]
    assert mine["trains_anew"] and mine["cost"]["trained"] == 2 * int(mine["setting"].removeprefix("steps "))
    assert set(mine["misaligned_of_coherent"]) == {"broad", "training", "kindly"}
    assert "kindly" not in rows["inoculation prompting"]["misaligned_of_coherent"]
    assert "shorter training" in (run / "report.html").read_text(encoding="utf-8")
