"""emlab's name for pip: no text tells anyone to install `emlab`, which on the index is somebody else's."""

import re
import tomllib
from pathlib import Path

import pytest

from emlab.errors import DISTRIBUTION, install

ROOT = Path(__file__).parents[1]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TEXTS = (
    ".py",
    ".pyi",
    ".md",
    ".jinja",
    ".yaml",
    ".yml",
    ".toml",
    ".ipynb",
    ".cff",
    ".txt",
    ".html",
    ".svg",
    "Makefile",
)
OURS = ("emlab", "docs", "experiments", "notebooks", "benchmarks", "sae_checkpoints", "tests", ".ci", ".")

BARE = r"emlab(?![\w.-])"
"""The name by itself, and not emlab.saes, emlab-data or a folder."""
WRONG = re.compile(
    rf"(?:\b(?:pip|pipx|uv|uv pip|conda|poetry)\s+(?:install|add|download)\b[^\n`]*?(?<![\w/.-]){BARE}(?!/)"
    r"|(?<![\w.])emlab\[[a-z][a-z, ]*\])"
)


def wrong(text: str) -> list[str]:
    """What tells to install somebody else's package."""
    return [match[0] for match in WRONG.finditer(text)]


def texts() -> list[Path]:
    found = {
        path
        for folder in OURS
        for path in ((ROOT / folder).glob("*") if folder == "." else (ROOT / folder).rglob("*"))
        if path.is_file() and path.name.endswith(TEXTS) and "checkpoints" not in path.relative_to(ROOT).parts
    }
    return sorted(found - {Path(__file__)})


def test_no_text_tells_to_install_somebody_elses_package():
    read = texts()
    assert {ROOT / "README.md", ROOT / "pyproject.toml", ROOT / "emlab/models/gguf.py"} <= set(read)
    told = {str(path.relative_to(ROOT)): wrong(path.read_text(encoding="utf-8")) for path in read}
    assert {name: found for name, found in told.items() if found} == {}


@pytest.mark.parametrize(
    "text",
    [
        "pip install emlab",
        'install it with `pip install "emlab[inspect]"`.',
        "pip install -U 'emlab[trl]'",
        "uv pip install emlab==0.2.0",
        "quantize=4bit with emlab[quantize]",
        "python -m pip install --quiet emlab",
    ],
)
def test_a_text_that_would_is_found(text):
    assert len(wrong(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        'pip install "emergent-misalignment-lab[inspect]"',
        "pip install .",
        "pip install ./emlab",
        "pip install -e '.[dev]'",
        "git clone ADDRESS emlab && cd emlab && pip install .",
        "emlab run experiments/persona_features.yaml",
        "emlab.saes[0]",
    ],
)
def test_what_is_right_is_left_alone(text):
    assert wrong(text) == []


def test_the_errors_name_the_declared_distribution_and_extras_that_there_are():
    assert DECLARED["name"] == DISTRIBUTION == "emergent-misalignment-lab"
    assert install("trl") == 'pip install "emergent-misalignment-lab[trl]"'
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "emlab").rglob("*.py"))
    named = set(re.findall(r"install\(['\"](\w+)['\"]\)", code))
    assert named == {"inspect", "trl", "real", "quantize", "view"} and named <= DECLARED["optional-dependencies"].keys()
    whole = code + "\n".join(path.read_text(encoding="utf-8") for path in texts())
    extras = {name for found in re.findall(rf"{DISTRIBUTION}\[([\w,]+)\]", whole) for name in found.split(",")}
    assert extras <= DECLARED["optional-dependencies"].keys()
