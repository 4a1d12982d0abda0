"""The one error that emlab raises on purpose, and how its sentences name what must be installed."""

DISTRIBUTION = "emergent-misalignment-lab"
"""What emlab is called for pip. The package called `emlab` on the index is somebody else's."""


class EmlabError(Exception):
    """Something a user can mend.

    Its text is one sentence: what is wrong, where, and the mend. The command line prints that sentence and exits
    with code 2; a traceback is shown only with `--debug`. Any other exception is a bug in emlab.
    """


def install(extra: str) -> str:
    """The command that installs an optional part of emlab, by its name in pyproject.toml."""
    return f'pip install "{DISTRIBUTION}[{extra}]"'
