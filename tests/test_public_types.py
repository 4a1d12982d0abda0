"""A type checker knows every public name: what each is, not `Any`."""

import subprocess
import sys
from pathlib import Path

import emlab

ROOT = Path(emlab.__file__).parents[1]
ROOMS = {path.stem for path in (ROOT / "emlab").iterdir()}


def test_no_public_name_is_any_to_a_type_checker(tmp_path):
    names = [name for name in emlab.__all__ if name not in ROOMS]
    assert len(names) > 30
    asking = tmp_path / "asking.py"
    asking.write_text("import emlab\n" + "".join(f"reveal_type(emlab.{name})\n" for name in names))
    # With the project's own settings and cache, which `make lint` has filled.
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(asking)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    said = [line.split("note: Revealed type is ")[1] for line in done.stdout.splitlines() if "Revealed type" in line]
    assert len(said) == len(names), done.stdout + done.stderr
    unknown = {name: what for name, what in zip(names, said, strict=True) if what == '"Any"'}
    assert unknown == {}
    assert "emlab.models.language_model.LanguageModel" in said[names.index("LanguageModel")]
    assert said[names.index("latent_shift")].endswith('emlab.discovery.shift.LatentShift"')
