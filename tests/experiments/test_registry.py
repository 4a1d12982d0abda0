"""Experiments are found by their folders; a package of one's own adds one by an entry point."""

import os
import subprocess
import sys
from pathlib import Path

from emlab import artifacts
from emlab.experiments.registry import EXPERIMENTS
from tests.packages import example, install

ROOT = Path(__file__).parents[2]


def test_emlabs_own_are_the_folders_with_a_run():
    folders = sorted(path.parent.name for path in (ROOT / "emlab" / "experiments").glob("*/run.py"))
    own = [name for name in EXPERIMENTS.names() if EXPERIMENTS.get(name).run.__module__.startswith("emlab.")]
    assert own == folders and len(own) == 13
    assert all(EXPERIMENTS.get(name).config.pipeline == name for name in own)


def test_another_packages_experiment_is_run_goes_on_and_is_done_once(tmp_path):
    install(tmp_path, "my_lab", example("answer_words.py"))
    config = artifacts.write_text(tmp_path / "answer_words.yaml", example("answer_words.yaml"))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}

    def run(*more):
        command = [sys.executable, "-m", "emlab", "run", str(config), "questions=4", "answers.max_new_tokens=8", *more]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    ran = run()
    assert ran.returncode == 0, ran.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    words = artifacts.read_json(folder / "count" / "result.json")["words"]
    mean = artifacts.read_json(folder / "summary.json")["mean_words"]
    assert len(words) == 4 and mean == sum(words) / 4 > 0
    assert f"aligned answers with {mean:.1f} words, of 4 answers." in ran.stdout
    assert "Words of answers: aligned" in (folder / "report.html").read_text(encoding="utf-8")
    assert "Already done at" in run().stdout
    assert "unknown key 'questons'; did you mean 'questions'?" in run("questons=3").stderr
