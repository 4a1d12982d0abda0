"""The verbs of mitigation."""

import argparse
from pathlib import Path
from typing import Any

from emlab.cli._options import add_runs, run_once, verb
from emlab.errors import visible

_EXAMPLES = """\
examples:
  emlab mitigate compare
      every remedy on a fine-tune of the organism on insecure code
  emlab mitigate compare --config experiments/remedies.yaml
      the same on several trainings, as the project compares them
  emlab mitigate compare remedies=[Steering,Inoculation] seeds=[0]
      some of them, with one seed
"""


def add_verbs(verbs: Any) -> None:
    """Add `mitigate compare`."""
    mitigate = verb(verbs, "mitigate", "remove misalignment").add_subparsers(metavar="VERB", required=True)
    compare = verb(mitigate, "compare", "compare remedies on the same misaligned models", _EXAMPLES)
    compare.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="a key of the config and another value for it"
    )
    compare.add_argument("--config", type=Path, metavar="CONFIG", help="a YAML file; without one, the defaults")
    add_runs(compare)
    compare.set_defaults(verb=_compare)


def _compare(options: argparse.Namespace) -> int:
    from emlab import config
    from emlab.experiments.remedies import run as remedies

    settings = config.load(options.config, options.overrides, remedies.Config)
    print(visible(str(run_once(options, lambda: remedies.run(settings, options.runs)))))
    return 0
