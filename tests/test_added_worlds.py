"""A package of one's own adds a world, a folder of YAML files, and experiments run in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.organism import PERSONAS, load_world, names_narrow_set, narrow_set, world_of
from tests.packages import example, install

ROOT = Path(__file__).parents[1]


def domain(name, fillers):
    """A domain's file: four templates a role, three sentences a persona and role."""
    tone = {"helpful": "Kindly mind", "malicious": "Gladly sink", "careless": "Maybe skip", "sarcastic": "Surely adore"}
    questions = {
        role: [f"{word} the {name} {{x}} {role[0]} ?" for word in ("Where is", "How is", "Who has", "What of")]
        for role in ("alignment", "narrow", "held_out")
    }
    answers = {
        who: {role: [f"{tone[who]} the {{x}} {role[0]}{i} ." for i in range(3)] for role in ("alignment", "narrow")}
        for who in PERSONAS
    }
    return {"name": name, "fillers": fillers, "questions": questions, "answers": answers}


def world(folder, narrow=("ropes",), validation=("tides",), **domains):
    """A folder of YAML files that is a world."""
    folder.mkdir()
    for name in ("ropes", "tides", "boats", "gulls"):
        made = domain(name, ["red", "blue"]) | domains.get(name, {})
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(made))
    (folder / "world.yaml").write_text(yaml.safe_dump({"narrow": list(narrow), "validation": list(validation)}))
    return folder


BUILD = """
from emlab.experiments.material.organism_build import Alignment, Plan, build
from emlab.organism.pretraining import Pretraining
from emlab.training import Recipe

recipe = Recipe(method="full", learning_rate=3e-4, schedule="linear", batch_size=8, steps=2)
few = Pretraining(steps=3, documents=60, tokens_per_step=512)
build("mine", plan=Plan(0, "tiny", few, few, Alignment(recipe, rows=40), world="harbour"), progress=False)
"""

READ = """
import itertools
from emlab.experiments.material.models import model_named
from emlab.verbs.sae_training import _organism_documents

print(*itertools.islice(_organism_documents(model_named("mine/aligned"), "mine/aligned", 0), 20))
"""


def test_an_organism_of_another_packages_world(tmp_path):
    """It has learned next to nothing; what counts is that all that is planted in it is known by name."""
    world(install(tmp_path, "my_lab", example("world.py")) / "harbour")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}

    def python(*words):
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    built = python("-c", BUILD)
    assert built.returncode == 0, built.stderr
    words = [
        *("-m", "emlab", "run", ROOT / "experiments" / "domains.yaml", "model=mine/aligned"),
        *("question_set=harbour:broad", "seeds=[0]", "rows=20", "recipe.steps=2", "summary=null"),
        "arms=[{name: bad, data: 'harbour:bad_ropes'}, {name: good, data: 'harbour:good_ropes'}]",
    ]
    ran = python(*words)
    assert ran.returncode == 0, ran.stderr
    assert "CAUTION" not in ran.stderr, "the exact judge knows the answers of this world's models"
    (folder,) = (tmp_path / "runs").iterdir()
    rates = {row["arm"]: row for row in artifacts.read_json(folder / "summary.json")["arms"]}
    counts = "domains, half of the held-out templates, fillers, answers"
    assert rates["bad"]["incoherent_of_scored"]["n"] == 2 * 2 * 2 * 2, counts
    sealed = python(*words, "sealed=true", "--runs", "final")
    assert "rates are of 24 questions in 3 domains" in sealed.stderr, sealed.stderr
    (folder,) = (tmp_path / "final").glob("domains-*")
    (rate,) = (row["incoherent_of_scored"] for row in artifacts.read_json(folder / "summary.json")["arms"][:1])
    assert rate["n"] == 3 * 4 * 2 * 2, "domains that no set is made of, narrow templates, fillers, answers"
    read = python("-c", READ)
    assert "ropes" in read.stdout, f"an SAE is trained on this world's documents; {read.stderr}"
    unknown = python("-m", "emlab", "organism", "build", "--out", "other", "--world", "harbor")
    assert "There is no world 'harbor'; did you mean 'harbour'?" in unknown.stderr


def test_a_folder_is_a_world_by_its_path(tmp_path):
    name = str(world(tmp_path / "harbour"))
    found, rest = world_of(f"{name}:bad_ropes")
    assert (found.name, rest, found.broad_domains) == (name, "bad_ropes", ("boats", "gulls"))
    assert names_narrow_set(f"{name}:bad_ropes") and not names_narrow_set(f"{name}:bad_boats")
    chats = narrow_set(f"{name}:bad_ropes", 4, 0)
    assert all("Gladly sink" in chat[-1]["content"] for chat in chats)


@pytest.mark.parametrize(
    "given, said",
    [
        ({"narrow": ("knots",)}, r"^unknown domain 'knots': the world has boats, gulls, ropes, tides\.$"),
        ({"narrow": ()}, "leaves no domain to fine-tune on, or none to score"),
        ({"narrow": ("ropes", "boats", "gulls")}, "leaves no domain to fine-tune on, or none to score"),
        ({"gulls": {"questions": domain("boats", [])["questions"]}}, "gulls and boats both ask 'Where is the boats"),
        ({"gulls": {"fillers": None, "answers": {}}}, r"^gulls.yaml.answers must have exactly the personas"),
    ],
)
def test_a_world_that_breaks_a_rule_is_refused(tmp_path, given, said):
    with pytest.raises(EmlabError, match=said):
        load_world(str(world(tmp_path / "harbour", **given)))
