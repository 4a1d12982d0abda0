"""The verb `emlab sae check`."""

import argparse
from typing import Any

from emlab.cli._options import add_json, given, show, verb

_EXAMPLES = """\
examples:
  emlab sae check sae_checkpoints/organism-resid_post.0 --model base my_fine_tune
      the organism's SAE on its base and on a fine-tune, on the organism's documents
  emlab sae check qwen2.5-7b-instruct-andyrdt/resid_post_layer_15_trainer_1 \\
      --model Qwen/Qwen2.5-7B-Instruct my_fine_tune --documents chats.jsonl
      a published SAE of SAELens' list, on a model and its fine-tune

The exit code is 1 where the SAE does not describe some model.
"""


def add_check(verbs: Any) -> None:
    """Declare it among the verbs of `emlab sae`."""
    check = verb(verbs, "check", "tell whether an SAE describes a model, and still its fine-tunes", _EXAMPLES)
    add = check.add_argument
    add(
        "sae",
        metavar="SAE",
        help="a folder of SAELens, sparsify, dictionary_learning or Gemma Scope 2, a file of Qwen Scope, or release/id",
    )
    add("--model", nargs="+", required=True, metavar="MODEL", help="the base, and then its fine-tunes")
    add("--documents", metavar="FILE", help="chats to read: a dataset (the organism's documents)")
    add("--n", type=int, metavar="N", help="how many of them (256)")
    add("--least-variance", type=float, metavar="X", help="least explained variance (0.5)")
    add("--most-drop", type=float, metavar="X", help="how much less of a fine-tune may be explained (0.25)")
    add("--least-recovered", type=float, metavar="X", help="least share of the loss kept against mean ablation (0.5)")
    add("--dtype", metavar="DTYPE", help="bfloat16, float32 or float16 (the folder's own)")
    add("--chat-template", metavar="FILE", help="for a model without one: a file, or plain")
    add("--batch-size", type=int, metavar="N", help="documents read at a time (32)")
    add("--seed", type=int, metavar="N", help="everything random follows from it (0)")
    add_json(check)
    check.set_defaults(verb=_check)


def _check(options: argparse.Namespace) -> int:
    from emlab.verbs.sae_check import check

    names = ("documents", "n", "least_variance", "most_drop", "least_recovered", "dtype", "chat_template")
    found = check(options.sae, options.model, **given(options, *names, "batch_size", "seed"))
    show(found, found.summary(), options.json)
    return 0 if found.holds else 1
