"""Methods of discovery: emlab's own say what they look at, and a package of one's own adds one by an entry point."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.experiments.discovery_scorecard.method import METHODS, Method, Search, method_names
from emlab.interventions import Direction
from emlab.sites import Site
from tests.packages import example, install

ROOT = Path(__file__).parents[3]


def test_another_package_adds_a_method_that_the_scorecard_proves(tmp_path):
    install(tmp_path, "my_package", example("answer_means.py"))
    small = ("sites=[resid_post.0]", "seeds=1", "rows=60", "recipe.steps=20", "questions=6", "documents=40")
    small += ("sae.tokens=2000", "sae.test_tokens=500", "sae.d_sae=64", "steering.random=1", "steering.strengths=[1.0]")
    small += ("steering.questions=4", "steering.first_round=2", "answers.max_new_tokens=24")
    words = ["organisms=[null]", "control_world=false", "methods=[mean of answers, random]"]
    words += [f"experiment.{setting}" for setting in small]
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    ran = subprocess.run(
        [sys.executable, "-m", "emlab", "run", ROOT / "experiments" / "discovery_scorecard.yaml", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    rows = {row["method"]: row for row in artifacts.read_json(folder / "summary.json")["rows"]}
    assert list(rows) == ["random", "mean of answers"], "after emlab's own"
    assert rows["mean of answers"]["found"] == 1 and rows["mean of answers"]["search"]["forwards"] == 2 * 24
    assert rows["mean of answers"]["auroc"]["value"] > 0.9 > rows["random"]["auroc"]["value"]
    assert "| mean of answers |" in ran.stdout and "mean of answers" in (folder / "report.html").read_text()


def search(**given):
    """What a method is given, of which most is missing."""
    fields = dict.fromkeys(field.name for field in dataclasses.fields(Search))
    return Search(**{**fields, "site": Site("resid_post", 0), **given})


@pytest.fixture
def method_of():
    return lambda find, *needs, finds="direction": Method(find, needs, finds, 0)


def test_a_method_sees_what_it_says_it_needs_and_nothing_else(method_of):
    seen = []
    direction = Direction(torch.ones(3), Site("resid_post", 0), "mine")

    def find(given):
        seen.append((given.contrasts, given.tuned))
        return direction

    found = method_of(find, "contrasts")(search(contrasts=["one"], tuned="a model"))
    assert seen == [(["one"], None)] and found.direction is direction and found.latent is None
    with pytest.raises(EmlabError, match="no contrasting answers to learn from"):
        method_of(find, "contrasts")(search(contrasts=[]))


def test_latents_are_proven_by_the_first_ones_direction(method_of):
    from sae_lens import TopKSAE, TopKSAEConfig

    torch.manual_seed(0)
    tiny_sae = TopKSAE(TopKSAEConfig(d_in=8, d_sae=12, k=2))
    found = method_of(lambda given: [3, 1], "sae", finds="latents")(search(sae=tiny_sae))
    assert found.latent == 3 and torch.allclose(found.direction.vector, tiny_sae.W_dec[3] / tiny_sae.W_dec[3].norm())
    with pytest.raises(EmlabError, match="names no latent"):
        method_of(lambda given: [], "sae", finds="latents")(search(sae=tiny_sae))


def test_a_method_that_finds_another_thing_than_it_says_is_refused(method_of):
    with pytest.raises(EmlabError, match=r"^A method said to find direction found \[3\]; say what it finds to @"):
        method_of(lambda given: [3])(search())


def test_emlabs_own_stand_in_their_order_and_tell_what_they_are():
    names = method_names()
    assert names[:2] == ("latent shift", "latent shift + screen") and names[-1] == "matched random"
    places = [METHODS.get(name).place for name in names]
    assert places == sorted(set(places)), "no two stand in one place"
    assert all(METHODS.get(name).__doc__ for name in names)
