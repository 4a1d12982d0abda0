"""The verbs of sparse autoencoders: sae train, sae check."""

import argparse
from pathlib import Path
from typing import Any

from emlab.cli._options import add_json, given, show, verb
from emlab.cli._sae_check import add_check

_TRAIN = """\
examples:
  emlab sae train --model base --out my_sae
      on the organism, reading its pretraining documents
  emlab sae train --model Qwen/Qwen2.5-0.5B-Instruct --documents chats.jsonl --site resid_post.12 \\
      --architecture batchtopk --d-sae 14336 --k 64 --tokens 50_000_000 --out qwen_sae --cache qwen_activations
      on a real model; the activations stay in qwen_activations, and the next training reads them from there
  emlab sae train --model my_finetune --base-sae my_sae --learning-rate 2e-4 --tokens 200_000 --out my_tuned_sae
      an SAE fine-tuned on a fine-tuned model's activations
  emlab sae train --model my_finetune --minus aligned --out my_difference
      an SAE of the difference of two models' activations at the same tokens
  emlab sae train --model my_finetune --both aligned --architecture batchtopk --out my_crosscoder
      a crosscoder: an SAE of both models' activations, which tells the latents that only one of them has

DOCUMENTS is a JSONL, parquet, JSON or CSV file, a dataset folder or a dataset of the hub: rows with a column text are
raw text, all others chats, and they may be mixed. The forward pass ends at the site. The first token of every document,
special tokens and attention sinks are left out and counted; the last token of the assistant's header is kept, since it
is where emlab reads a model. The activations are never all in memory.

Stopped, the same command goes on from its last checkpoint, to the same weights.
"""


def add_verbs(verbs: Any) -> None:
    """Declare them."""
    sae = verb(verbs, "sae", "train sparse autoencoders, and check them").add_subparsers(metavar="VERB", required=True)
    for add in (_add_train, add_check):
        add(sae)


def _add_train(verbs: Any) -> None:
    train = verb(verbs, "train", "train a sparse autoencoder on a model's activations", _TRAIN)
    train.add_argument(
        "--model", required=True, metavar="MODEL", help="the organism's by name, a folder, or a name on the Hub"
    )
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make, in SAELens format")
    read = train.add_argument_group("what it reads").add_argument
    read("--site", metavar="SITE", help="where, for example resid_post.12 (resid_post.0)")
    read("--documents", metavar="DOCUMENTS", help="what (the organism's pretraining documents, for its models)")
    read("--split", metavar="NAME", help="of a dataset (train)")
    read("--read", choices=("all", "prompt", "assistant"), help="which tokens of a chat (all)")
    read("--keep", nargs="+", choices=("first", "special", "sinks"), help="tokens not to leave out")
    read("--max-length", type=int, metavar="N", help="cut chats after, and raw texts into pieces of, N tokens (1024)")
    read("--held-out", type=int, metavar="N", help="the first N documents measure the SAE (200)")
    read("--cache", type=Path, metavar="DIR", help="write the activations there once, and read them from there")
    read("--buffer", type=int, metavar="N", help="without a cache: shuffle through N activations (262144)")
    two = train.add_argument_group("two models, or two SAEs").add_argument
    two("--minus", metavar="MODEL", help="the model before: train on MODEL's difference from it")
    two("--both", metavar="MODEL", help="the model before: train a crosscoder on it and MODEL")
    two("--base-sae", metavar="SAE", help="start from this SAE's weights")
    how = train.add_argument_group("how it is trained").add_argument
    how("--architecture", metavar="NAME", help="topk, fast_topk, batchtopk, jumprelu or matryoshka (topk)")
    how("--d-sae", type=int, metavar="N", help="latents (512)")
    how("--k", type=float, metavar="N", help="latents active on a token (16)")
    how("--l0-coefficient", type=float, metavar="X", help="of jumprelu: the cost of an active latent (1)")
    how("--tokens", type=int, metavar="N", help="activations to train on (500000)")
    how("--batch-size", type=int, metavar="N", help="activations in a step (1024)")
    how("--learning-rate", type=float, metavar="X", help="at its height (0.002)")
    how("--checkpoint-every", type=int, metavar="N", help="steps (1000)")
    how("--seed", type=int, metavar="N", help="everything random follows from it (0)")
    add_json(train)
    train.set_defaults(verb=_train)


def _train(options: argparse.Namespace) -> int:
    from emlab.verbs.sae_training import sae

    what = ("model", "out", "site", "documents", "split", "read", "keep", "max_length", "held_out", "cache", "buffer")
    two = ("minus", "both", "base_sae")
    how = ("architecture", "d_sae", "k", "l0_coefficient", "tokens", "batch_size", "learning_rate", "checkpoint_every")
    found = sae(**given(options, *what, *two, *how, "seed"))
    show(found, found.summary(), options.json)
    return 0
