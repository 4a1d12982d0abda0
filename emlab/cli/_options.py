"""What the verbs share: how one is declared, which options were given, how a run is begun, how a result is shown."""

import argparse
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from emlab import artifacts
from emlab.errors import visible


def add_debug() -> argparse.ArgumentParser:
    """A parent parser with --debug."""
    # SUPPRESS: a --debug before the verb is not undone by the verb's own default.
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    return debug


def verb(verbs: Any, name: str, what: str, examples: str = "") -> argparse.ArgumentParser:
    """A parser for one verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[add_debug()],
        allow_abbrev=False,
    )
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option --json."""
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write the figures to FILE as JSON; '-' or nothing: print them",
    )


def add_runs(parser: argparse.ArgumentParser) -> None:
    """The options --runs, --again and --keep-stages of a verb that makes a run's folder."""
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="where the run's folder goes (runs)"
    )
    parser.add_argument("--again", action="store_true", help="run it although the same run is done, or under way")
    parser.add_argument(
        "--keep-stages",
        action="store_true",
        help="go on with finished stages of other code too; the report then says so",
    )


@dataclass(frozen=True)
class Done:
    """A run that was finished before, in place of what running it again would give."""

    folder: Path

    def summary(self) -> Any:
        """What stands in its summary.json."""
        file = self.folder / "summary.json"
        return artifacts.read_json(file) if file.is_file() else {}

    def __str__(self) -> str:
        found, report = self.summary().get("findings", []), self.folder / "report.html"
        said = f"Already done at {self.folder}; add --again to run it anew."
        return "\n".join([*found, *([f"Report: {report}"] if report.is_file() else []), said])


def run_once(options: argparse.Namespace, run: Callable[[], Any], own: Path | None = None) -> Any:
    """What `run` gives, or with no --again the `Done` of the same run, where it was finished before.

    `own` is the folder of the run whose own config it is.
    """
    from emlab.runs import AlreadyDone, keep_stages, once

    with keep_stages() if options.keep_stages else contextlib.nullcontext():
        if options.again:
            return run()
        try:
            with once(options.runs, own):
                return run()
        except AlreadyDone as done:
            return Done(done.folder)


def show(result: Any, figures: Any, to: str | None) -> None:
    """Print `result`, and write its `figures` as JSON where `to` says so; "-" prints them instead."""
    if to == "-":
        print(json.dumps(artifacts.plain(figures), indent=2, ensure_ascii=False))
        return
    print(visible(str(result)))
    if to is not None:
        artifacts.write_json(Path(to), figures)


def calls(parser: argparse.ArgumentParser, function: str, figures: str | None = None, **defaults: Any) -> None:
    """The verb calls `function` ("emlab.verbs.stages:shift") with the options that were given, and shows its result.

    The exit code is 1 for a result that says of itself that it does not hold.

    Args:
        parser: The verb's, whose options are named as the function's parameters.
        function: Imported when the verb is asked for.
        figures: What makes figures of the result for --json, in place of its `summary`.
        **defaults: What else the options say of the verb, for example what it leaves behind when it is stopped.
    """
    parser.set_defaults(verb=partial(_called, function, figures), **defaults)


def _called(function: str, figures: str | None, options: argparse.Namespace) -> int:
    found = resolve_name(function)(**given(options, *(name for name in vars(options) if name not in _APART)))
    to = getattr(options, "json", None)
    if figures is not None:
        show(found, resolve_name(figures)(found), to)
    else:
        told = getattr(found, "summary", found)
        show(found, told() if callable(told) else told, to)
    return 0 if getattr(found, "holds", True) else 1


_APART = ("verb", "json", "debug", "kept")
"""What is not the called function's."""


def given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that were given; for the others the called function has its own defaults."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}
