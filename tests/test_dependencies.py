"""What pyproject.toml declares: all that emlab imports and no more, and every file that it reads."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WRITTEN = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def checked(tmp_path, text):
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "deptry", ".", "--config", str(tmp_path / "pyproject.toml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_every_dependency_is_declared_and_used(tmp_path):
    code, said = checked(tmp_path, WRITTEN)
    assert code == 0, said


@pytest.mark.parametrize(
    ("instead", "said"),
    [("", "'krippendorff' imported but"), ('"krippendorff", "regex",', "'regex' defined as a dependency but")],
)
def test_one_too_few_or_too_many_is_told(tmp_path, instead, said):
    assert '"krippendorff>=0.8",' in WRITTEN
    code, told = checked(tmp_path, WRITTEN.replace('"krippendorff>=0.8",', instead))
    assert code == 1 and said in told


def test_every_file_that_is_no_code_goes_into_the_package():
    declared = tomllib.loads(WRITTEN)["tool"]["setuptools"]["package-data"]
    packed = {
        file
        for package, globs in declared.items()
        for glob in globs
        for file in (ROOT / package.replace(".", "/")).glob(glob)
    }
    others = {file for file in (ROOT / "emlab").rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")}
    assert others - packed == set()
