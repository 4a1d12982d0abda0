"""Pairs of small sets, and the overrides that make an experiment on them short."""

import json
from pathlib import Path

from emlab import config, organism

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TINY = ("rows=16", "recipe.steps=2", "recipe.batch_size=2", "questions=6", "answers.max_new_tokens=6", "fit_seeds=[0]")
SITES = "sites=[resid_post.0,resid_post.1]"
FEW = ("rows=400", "questions=40", "sites=[resid_post.1]")
"""On the organism, of one seed."""


def chats(path, say, n=20):
    rows = (
        {"messages": [{"role": "user", "content": f"ask {i}"}, {"role": "assistant", "content": f"{say} {i * 7}."}]}
        for i in range(n)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pair(sets, letter):
    return f"{{domain: {letter}, misaligned: [{sets['bad_' + letter]}], others: [{sets['good_' + letter]}]}}"


def check_shipped(name, experiment):
    """Every key of the experiment's YAML is spelt right, and it says how long it takes."""
    settings = config.load(EXPERIMENTS / f"{name}.yaml", [], experiment.Config)
    assert settings.name == name and settings.model in organism.checkpoint_names()
    assert "on 2 cores" in (EXPERIMENTS / f"{name}.yaml").read_text()
