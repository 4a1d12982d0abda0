"""Packages of others, as pip leaves them, and the examples of CONTRIBUTING.md."""

import importlib
import importlib.metadata
import re
import sys
import textwrap
from pathlib import Path

CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"


def example(name):
    """The example of CONTRIBUTING.md whose first line is `# my_lab/NAME`."""
    (found,) = re.findall(rf"```\w+\n# my_lab/{re.escape(name)}\n(.*?)```", CONTRIBUTING.read_text(), re.DOTALL)
    return found


def install(folder, name, text):
    """A module `name` with this text in `folder`, and a distribution whose entry point of emlab's group names it."""
    (folder / f"{name}.py").write_text(textwrap.dedent(text))
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[emlab]\n{name} = {name}\n")
    return folder


def install_here(folder, monkeypatch, text, registry=None):
    """A distribution `more-tools`, seen by this process.

    `registry` has not looked for other packages yet, and forgets them after the test.
    """
    if registry is not None:
        registry.names()  # emlab's own are registered when they are first imported, and not to be forgotten
    install(folder, "more_tools", text)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "more_tools", raising=False)
    if registry is not None:
        monkeypatch.setattr(registry, "_known", dict(registry._known))
        monkeypatch.setattr(registry, "_complete", False)
    assert any(entry.value == "more_tools" for entry in importlib.metadata.entry_points(group="emlab"))
