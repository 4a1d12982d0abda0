"""What `import emlab` and `emlab --help` load. Asked of sys.modules, since a clock depends on the machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import emlab

HEAVY = {
    *("torch", "numpy", "scipy", "pandas", "transformers", "tokenizers", "safetensors", "peft", "accelerate"),
    *("datasets", "sae_lens", "transformer_lens", "nnsight", "trl", "wandb", "plotly", "yaml"),
}


@pytest.mark.parametrize(
    "code",
    [
        "import emlab; dir(emlab)",
        "from emlab import EmlabError",
        "import emlab.cli",
        "import emlab.cli, contextlib\nwith contextlib.suppress(SystemExit): emlab.cli.main(['--help'])",
    ],
)
def test_nothing_heavy_is_loaded(code):
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    env = {**os.environ, "PYTHONPATH": str(Path(emlab.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    loaded = set(done.stderr.split())
    assert "emlab" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("name", emlab.__all__)
def test_every_public_name_is_there(name):
    assert getattr(emlab, name) is not None
    assert name in dir(emlab)


def test_a_name_that_is_not_public_is_an_ordinary_attribute_error():
    with pytest.raises(AttributeError, match="No emlab attribute Sight"):
        emlab.Sight  # noqa: B018
