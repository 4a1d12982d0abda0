"""The configs and SAEs that ship with emlab are found from any folder: in a checkout, and in what a wheel installs."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from emlab import provenance, shipped
from emlab.config import pipeline_of
from emlab.errors import EmlabError
from emlab.saes.loading import check_there

ROOT = Path(__file__).parents[1]
CONFIG, SAE = "experiments/persona_features.yaml", "sae_checkpoints/organism-resid_post.0"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty working folder, in which nothing has been said yet."""
    monkeypatch.chdir(tmp_path)
    shipped._say.cache_clear()
    return tmp_path


@pytest.mark.parametrize("name", [CONFIG, SAE, "experiments/real/smollm2/sets.yaml"])
def test_what_ships_is_found_by_its_name_and_this_is_said_once(elsewhere, capsys, name):
    assert shipped.located(name) == ROOT / name == shipped.located(Path(name))
    said = f"There is no {name} in this folder, so the one that ships with emlab is read.\n"
    assert capsys.readouterr().err == said


def test_what_lies_in_the_working_folder_comes_first(elsewhere, capsys):
    (elsewhere / "experiments").mkdir()
    (elsewhere / CONFIG).write_text("pipeline: mine\n")
    assert shipped.located(CONFIG) == Path(CONFIG) and pipeline_of(CONFIG) == "mine"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "name",
    ["experiments/none.yaml", "none/persona_features.yaml", "/" + CONFIG, "experiments/../README.md", "", "x" * 999],
)
def test_any_other_path_stays_as_it_is(elsewhere, capsys, name):
    assert shipped.located(name) == Path(name)
    assert capsys.readouterr().err == ""


def test_configs_and_saes_are_read_from_there(elsewhere):
    assert pipeline_of(CONFIG) == "persona_features"
    check_there(SAE)
    with pytest.raises(EmlabError, match=r"experiments/none.yaml does not exist; check the path\."):
        pipeline_of("experiments/none.yaml")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """A wheel of this checkout, built without a network and unpacked; no other file of the checkout is near."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("emlab", *shipped.FOLDERS):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "wheel", str(tree), *options, "-w", str(out)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = out.glob("*.whl")
    assert wheel.name.startswith("emergent_misalignment_lab-")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(out / "site")
    return out / "site"


def run(unpacked, folder, code):
    """Python in `folder`, which imports what was unpacked, and nothing of the checkout."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    whole = f"import sys; sys.path.insert(0, {str(unpacked)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", whole], cwd=folder, env=env, capture_output=True, text=True)


def test_a_wheel_has_what_ships_and_is_the_same_code(unpacked, tmp_path):
    packed = unpacked / "emlab" / "shipped_files"
    for name in shipped.FOLDERS:
        here = {path.relative_to(ROOT) for path in (ROOT / name).rglob("*") if path.is_file()}
        assert here == {path.relative_to(packed) for path in (packed / name).rglob("*") if path.is_file()}
    done = run(
        unpacked, tmp_path, "import emlab; from emlab.provenance import code\nprint(emlab.__file__, code().hash)"
    )
    assert done.stdout.split() == [str(unpacked / "emlab/__init__.py"), provenance.code().hash], done.stderr


def test_an_experiment_runs_from_a_wheel_in_an_empty_folder(unpacked, tmp_path):
    asked = "from emlab.cli import main; sys.exit(main(sys.argv[1:] or {}))"
    words = ["run", "experiments/backdoor.yaml", "seeds=[0]", "rows=20", "recipe.steps=1", "questions=4"]
    words += ["answers.max_new_tokens=8", "summary=null"]
    help_ = run(unpacked, tmp_path, asked.format(["run", "--help"]))
    assert help_.returncode == 0 and help_.stdout.startswith("usage: emlab run"), help_.stderr
    done = run(unpacked, tmp_path, asked.format(words))
    assert done.returncode == 0, done.stderr
    assert (
        "There is no experiments/backdoor.yaml in this folder, so the one that ships with emlab is read." in done.stderr
    )
    assert [path.name for path in tmp_path.glob("runs/*/report.html")] == ["report.html"]
    read = run(unpacked, tmp_path, f"import emlab; print(emlab.load_sae({SAE!r}).cfg.d_sae)")
    assert read.stdout == "512\n", read.stderr
