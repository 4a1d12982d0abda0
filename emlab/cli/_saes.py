"""The verbs of sparse autoencoders: sae train, sae check, sae list."""

from pathlib import Path
from typing import Any

from emlab.cli._options import add_json, calls, verb

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

DOCUMENTS is a JSONL, parquet, JSON or CSV file, a dataset folder, a published set (`emlab data list`) or a dataset of
the hub: rows with a column text are raw text, all others chats, and they may be mixed. The forward pass ends at the
site. The first token of every document, special tokens and attention sinks are left out and counted; the last token of
the assistant's header is kept, since it is where emlab reads a model. The activations are never all in memory.

Stopped, the same command goes on from its last checkpoint, to the same weights.
"""

_CHECK = """\
examples:
  emlab sae check sae_checkpoints/organism-resid_post.0 --model base my_fine_tune
      the organism's SAE on its base and on a fine-tune, on the organism's documents
  emlab sae check qwen2.5-7b-instruct-andyrdt/resid_post_layer_15_trainer_1 \\
      --model Qwen/Qwen2.5-7B-Instruct my_fine_tune --documents chats.jsonl
      a published SAE of SAELens' list, on a model and its fine-tune

The exit code is 1 where the SAE does not describe some model.
"""


def add_verbs(verbs: Any) -> None:
    """Declare them."""
    sae = verb(verbs, "sae", "train sparse autoencoders, and check them").add_subparsers(metavar="VERB", required=True)
    _add_train(sae)
    _add_check(sae)
    listed = verb(sae, "list", "list the SAEs that emlab ships, and those of SAELens' list")
    listed.add_argument("--model", metavar="NAME", help="of models with this in their name")
    add_json(listed)
    calls(listed, "emlab.verbs.sae_list:list_saes", kept="nothing was written")


def _add_train(verbs: Any) -> None:
    train = verb(verbs, "train", "train a sparse autoencoder on a model's activations", _TRAIN)
    train.add_argument(
        "--model", required=True, metavar="MODEL", help="the organism's by name, a folder, or a name on the Hub"
    )
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make, in SAELens format")
    read = train.add_argument_group("what it reads").add_argument
    read("--site", metavar="SITE", help="where, for example resid_post.12 (resid_post.0)")
    what = "what: of several one document in turn (the organism's pretraining documents, for its models)"
    read("--documents", nargs="+", metavar="DOCUMENTS", help=what)
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
    how("--half", action="store_true", default=None, help="round its weights to float16 in the end: half the space")
    add_json(train)
    calls(train, "emlab.verbs.sae_training:sae")


def _add_check(verbs: Any) -> None:
    """Declare it among the verbs of `emlab sae`."""
    check = verb(verbs, "check", "tell whether an SAE describes a model, and still its fine-tunes", _CHECK)
    add = check.add_argument
    add(
        "sae",
        metavar="SAE",
        help="a folder of SAELens, sparsify, dictionary_learning or Gemma Scope 2, a file of Qwen Scope, or release/id",
    )
    add("--model", dest="models", nargs="+", required=True, metavar="MODEL", help="the base, and then its fine-tunes")
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
    calls(check, "emlab.verbs.sae_check:check")
