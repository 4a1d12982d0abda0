"""The `emlab` command. Thin: each verb imports one public function when it is asked for, and calls it."""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from emlab import artifacts
from emlab.cli._verbs import parser as _parser
from emlab.errors import EmlabError, memory_error, visible
from emlab.sealing import is_reserved

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0: done; 1: `organism check` found a promise not kept; 2: something the user can mend, said in one sentence;
    130: stopped by Ctrl-C. Any other exception is a bug and shows its traceback.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest:
        # Before Python 3.13 argparse does not see the overrides that stand after an option.
        if not hasattr(options, "overrides") or any(word.startswith("-") for word in rest):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        options.overrides = [*options.overrides, *rest]
    _expand(options)
    debug = getattr(options, "debug", False)
    try:
        if is_reserved(seed := getattr(options, "seed", None) or 0):
            raise EmlabError(f"--seed {seed} is one of sealed runs, which take it by themselves; give another.")
        figures = getattr(options, "json", None)
        if figures not in (None, "-"):
            artifacts.check_file(figures)
        with _claimed(options):
            code: int = options.verb(options)
        sys.stdout.flush()  # here, where a full disk still becomes a sentence
        return code
    except EmlabError as error:
        if debug:
            raise
        return _say(str(error))
    except KeyboardInterrupt:
        if debug:
            raise
        kept = getattr(options, "kept", "the stages that had finished are kept on disk")
        _say(f"stopped by Ctrl-C; {kept(options) if callable(kept) else kept}.")
        return 130
    except BrokenPipeError:
        _mute()  # whoever read the output has left
        return 1
    except Exception as error:
        # A full disk met outside of emlab's own writing, for example inside a library; or too little memory.
        sentence = artifacts.storage_error(error) or memory_error(error)
        if debug or sentence is None:
            raise
        _mute()
        return _say(str(sentence))


def _expand(options: argparse.Namespace) -> None:
    # The shell expands a word that begins with ~, and not --model=~/my_model; what is said to a model is no path.
    for name, value in vars(options).items():
        if isinstance(value, Path):
            setattr(options, name, artifacts.place(value))
        elif isinstance(value, str) and name != "system":
            setattr(options, name, artifacts.expanded(value))
        elif isinstance(value, list):
            setattr(options, name, [artifacts.expanded(each) if isinstance(each, str) else each for each in value])


def _claimed(options: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """A claim on what the verb is to make, so that a second one that would make it too does not work in vain."""
    out = getattr(options, "out", None)
    # What many may fill at a time is not claimed as a whole.
    return contextlib.nullcontext() if out is None or getattr(options, "filled", False) else artifacts.claimed(out)


def _mute() -> None:
    """Let what could not be written to stdout go nowhere; Python would try again at its end, and complain."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(sentence: str) -> int:
    print(f"emlab: {visible(sentence)}", file=sys.stderr)
    return 2
