"""The one error that emlab raises on purpose, and how its sentences name what must be installed."""

import re

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


def visible(text: str) -> str:
    """The text for a terminal: what would move its cursor, colour it or turn its direction is shown as an escape.

    A model's answer, a dataset and the name of a file are written by others.
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def memory_error(error: BaseException) -> EmlabError | None:
    """The one-sentence form of a lack of memory, the machine's or a GPU's, or None if `error` is none."""
    text = str(error)
    lacks = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, not imported here
    if not lacks and "can't allocate memory" not in text:
        return None
    asked = re.search(r"allocate ([\d.]+ ?[KMGTi]*B|\d+ bytes)", text)
    return EmlabError(
        f"There is not enough memory{f' ({asked[1]} more were asked for)' if asked else ''}; take smaller batches "
        "(answers.batch_size and recipe.micro_batch of a config, --batch-size of a verb), a smaller model, or a larger "
        "machine."
    )
