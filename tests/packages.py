"""Packages of others, as pip leaves them."""

import textwrap


def install(folder, name, text):
    """A module `name` with this text in `folder`, and a distribution whose entry point of emlab's group names it."""
    (folder / f"{name}.py").write_text(textwrap.dedent(text))
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[emlab]\n{name} = {name}\n")
    return folder
