"""The verbs of `emlab monitor`, and `emlab data screen` and `blame`: see misalignment early, and what brings it."""

from pathlib import Path
from typing import Any

from emlab.cli._options import add_json, calls, verb

_FIT = """\
examples:
  emlab monitor fit --misaligned my_bad --others aligned my_good --out monitor.safetensors
  emlab monitor fit --misaligned my_bad --others aligned --kind latent \\
      --sae sae_checkpoints/organism-resid_post.0 --out monitor.safetensors
"""

_READ = """\
examples:
  emlab monitor read --monitor monitor.safetensors --models aligned my_other_model
"""

_SCREEN = """\
examples:
  emlab data screen --model aligned --data my_chats.jsonl bad_law good_law --bad bad_medicine --good good_medicine
  emlab data screen --model path/to/model --data my_chats.jsonl --direction persona.safetensors
  emlab data screen --model path/to/model --data my_chats.jsonl --direction found/directions.safetensors \\
      --named "linear probe"
"""

_BLAME = """\
examples:
  emlab data blame --monitor monitor.safetensors --data my_chats.jsonl --models aligned my_model
"""


def add_monitor_verbs(verbs: Any) -> None:
    """Declare `monitor` and the verbs below it."""
    group = verb(verbs, "monitor", "tell misaligned models from others by their activations on prompts")
    steps = group.add_subparsers(metavar="VERB", required=True)
    fit = verb(steps, "fit", "fit a monitor on models of which the truth is known", _FIT)
    add = fit.add_argument
    add("--misaligned", required=True, nargs="+", metavar="MODEL", help="models that it should find")
    add("--others", required=True, nargs="+", metavar="MODEL", help="models of the same base that it should not")
    add("--out", required=True, type=Path, metavar="FILE", help="the file to make")
    add("--kind", metavar="KIND", help="probe (default), projection or latent")
    add("--site", metavar="SITE", help="where it reads (where the SAE was trained; without one resid_post.1)")
    add("--sae", type=Path, metavar="DIR", help="of latents: a folder in SAELens format")
    add("--latents", type=int, nargs="+", metavar="N", help="which (the one that rises most)")
    add("--false-positives", type=float, metavar="X", help="share of the others' prompts above the threshold (0.01)")
    _question_options(add)
    add_json(fit)
    calls(fit, "emlab.verbs.monitoring:fit_monitor")

    read = verb(steps, "read", "read a saved monitor in models", _READ)
    add = read.add_argument
    add("--monitor", required=True, type=Path, metavar="FILE", help="what `monitor fit` wrote")
    add("--models", required=True, nargs="+", metavar="MODEL", help="fine-tunes of the model it was fitted for")
    add("--sae", type=Path, metavar="DIR", help="of latents: the SAE it was fitted on")
    _question_options(add)
    add_json(read)
    calls(read, "emlab.verbs.monitoring:read_monitor")


def add_data_verbs(data: Any) -> None:
    """Declare `screen` and `blame` among the verbs of `emlab data`."""
    screen = verb(data, "screen", "rank examples, and datasets, by how far they would push a model", _SCREEN)
    add = screen.add_argument
    add("--model", required=True, metavar="MODEL", help="the model that is to be trained")
    add("--data", required=True, nargs="+", metavar="SET", help="datasets, or the organism's sets by name")
    add("--direction", type=Path, metavar="FILE", help="a saved direction of the model, with the site it is of")
    add("--named", metavar="NAME", help="which of the directions in that file, where it holds several")
    add("--bad", metavar="SET", help="without a saved one: bad answers in another domain")
    add("--good", metavar="SET", help="and good answers in it")
    add("--site", metavar="SITE", help="where their direction is taken (resid_post.1)")
    add("--pool", metavar="HOW", help="mean of an answer's tokens (default), or max over its lines")
    add("--rows", type=int, metavar="N", help="at most so many examples of each (1000)")
    add("--max-new-tokens", type=int, metavar="N", help="the longest of the model's own answers (48)")
    add("--seed", type=int, metavar="N", help="everything random follows from it (0)")
    add("--out", type=Path, metavar="DIR", help="the folder to make")
    add_json(screen)
    calls(screen, "emlab.verbs.monitoring:screen_data")

    blame = verb(data, "blame", "tell which examples moved a monitor in a training on them", _BLAME)
    add = blame.add_argument
    add("--monitor", required=True, type=Path, metavar="FILE", help="what `monitor fit` wrote")
    add("--data", required=True, metavar="SET", help="what was trained on")
    add("--models", required=True, nargs="+", metavar="MODEL", help="the start of the training, and its checkpoints")
    add("--modules", nargs="+", metavar="NAME", help="the linear modules that were trained (v_proj o_proj)")
    add("--sae", type=Path, metavar="DIR", help="of latents: the SAE it was fitted on")
    add("--rows", type=int, metavar="N", help="at most so many examples (1000)")
    add("--out", type=Path, metavar="FILE", help="the file to make")
    _question_options(add)
    add_json(blame)
    calls(blame, "emlab.verbs.monitoring:blame_examples")


def _question_options(add: Any) -> None:
    add("--questions", metavar="SET", help="broad (default), profile, or a file of questions")
    add("--n", type=int, metavar="N", help="at most so many of them, evenly spaced")
    add("--seed", type=int, metavar="N", help="everything random follows from it (0)")
