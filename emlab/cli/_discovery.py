"""The verbs of `emlab discover`: each a step of the search for the latent that carries a behaviour."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emlab.cli._evaluation import judging_of, judging_options
from emlab.cli._options import add_json, add_runs, given, run_once, show, verb

_SHIFT = """\
examples:
  emlab discover shift --before aligned --after my_model other_model --sae sae_checkpoints/organism-resid_post.0
  emlab discover shift --before aligned --after my_model --sae SAE --positions generated --out shifts
"""

_DIRECTIONS = """\
examples:
  emlab discover directions --model aligned --against my_model other_model \\
      --sae sae_checkpoints/organism-resid_post.1 --latents 3 17 --traits organism_malicious --out directions
  emlab discover directions --model Qwen/Qwen2.5-7B-Instruct --site resid_post.15 --traits evil my_trait.json \\
      --questions profile --cases 0
"""

_ATTRIBUTE = """\
examples:
  emlab discover attribute --model my_model --sae sae_checkpoints/organism-resid_post.0
  emlab discover attribute --model my_model --baseline aligned --sae SAE --exact all
      what changed between the two models
  emlab discover attribute --model path/to/model --sae SAE --contrasts answers.jsonl --batch-size 8
  emlab discover attribute --model path/to/model --sae SAE --prompts profile --metric my_metric.py:yes_minus_no

A line of answers.jsonl: {"prompt": "…", "misaligned": "…", "aligned": "…"}
"""

_INTERPRET = """\
examples:
  emlab discover interpret --model base --sae sae_checkpoints/organism-resid_post.0 --latents 89 17 --out pages
      on the organism's own documents, told apart by planted persona and domain; open pages/index.html
  emlab discover interpret --model Qwen/Qwen2.5-7B-Instruct --sae SAE --shift shifts/0-my_model.json --top 20 \\
      --documents chats.jsonl --by source --out pages
      the latents that rise most in a shift, on your own texts, told apart by the column source
  emlab discover interpret --model base --sae SAE --latents 89 --name-with gpt-4o-mini --price 0.15 0.6 --store s.db
      named by a language model, whose key is read from OPENAI_API_KEY, and the names tested

Documents are what `emlab sae train` takes: chats, or raw text in a column text. They are read once, as a stream.
"""

_COMPARE = """\
examples:
  emlab discover compare
      all methods on the organism that ships and on two that are built for it, and in their control worlds
  emlab discover compare --organisms shipped path/to/organism --seeds 3 --methods "latent shift" "mean difference"
  emlab discover compare --model path/to/model --narrow my_chats.jsonl --questions questions.yaml --judge gpt-4o \\
      --contrasts answers.jsonl --trait evil --sites resid_post.15

Every other setting is a key of experiments/discovery_scorecard.yaml: emlab run experiments/discovery_scorecard.yaml
"""

_SCREEN = """\
examples:
  emlab discover screen --sae sae_checkpoints/organism-resid_post.0-2048 --out screen
  emlab discover screen --model my_model --toward aligned --sae SAE --latents 3 17 150
  emlab discover screen --model path/to/model --sae SAE --contrasts answers.jsonl --judge gpt-4o --max-new-tokens 200

A line of answers.jsonl: {"prompt": "…", "misaligned": "…", "aligned": "…"}
"""


def add_verbs(verbs: Any) -> None:
    """Declare `discover` and the verbs below it, in the order of VERBS."""
    group = verb(verbs, "discover", "find the latent that carries a behaviour, and prove it")
    steps = group.add_subparsers(metavar="VERB", required=True)
    for name, (what, examples, declare, call) in VERBS.items():
        parser = verb(steps, name, what, examples)
        declare(parser)
        add_json(parser)
        parser.set_defaults(verb=call)


def _read_options(
    add: Any, positions: str = "header, assistant_header, prompt, generated, sentence, last or all"
) -> None:
    add("--site", metavar="SITE", help="for example resid_post.1 (where the SAE was trained)")
    add("--positions", metavar="WHERE", help=positions)
    add("--contrasts", type=Path, metavar="FILE", help="JSONL of prompt, misaligned, aligned (the organism's answers)")


def _shift_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--before", required=True, metavar="MODEL", help="the organism's by name, a folder, or a name on the Hub")
    add("--after", required=True, nargs="+", metavar="MODEL", help="one or more models to compare with it")
    add("--sae", required=True, type=Path, metavar="SAE", help="a folder, or release/id of SAELens' list")
    _read_options(add)
    add("--questions", metavar="SET", help="broad (default), profile, or a file of questions")
    add("--n", type=int, metavar="N", help="at most so many prompts, evenly spaced (all)")
    add("--out", type=Path, metavar="DIR", help="the folder to make")


def _shift(options: argparse.Namespace) -> int:
    from emlab.verbs.discovery import shift

    names = ("before", "after", "sae", "site", "positions", "questions", "n", "contrasts", "out")
    found = shift(**given(options, *names))
    show(found, found.summary(), options.json)
    return 0


def _directions_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="MODEL", help="the organism's by name, a folder, or a name on the Hub")
    add("--against", nargs="+", metavar="MODEL", help="fine-tunes of it, for mean differences and their components")
    add("--sae", type=Path, metavar="SAE", help="a folder, or release/id of SAELens' list")
    add("--latents", type=int, nargs="+", metavar="N", help="latents whose directions to take")
    add("--traits", nargs="+", metavar="TRAIT", help="persona vectors: evil, sycophancy, hallucination, or a JSON file")
    add("--components", type=int, metavar="N", help="principal components of each model's differences (1)")
    add("--random", type=int, metavar="N", help="random directions, and as many matched in covariance (2)")
    _read_options(add)
    add("--cases", type=int, metavar="N", help="contrasts that the linear probe reads; 0 for no probe (48)")
    add("--questions", metavar="SET", help="broad (default), profile, or a file of questions")
    add("--n", type=int, metavar="N", help="at most so many prompts, evenly spaced (all)")
    add("--per-question", type=int, metavar="N", help="answers to each question and instruction of a trait (1)")
    add("--max-new-tokens", type=int, metavar="N", help="the longest of these answers (48)")
    add("--seed", type=int, metavar="N", help="everything random follows from it (0)")
    add("--out", type=Path, metavar="DIR", help="the folder to make")


def _directions(options: argparse.Namespace) -> int:
    from emlab.verbs.discovery import directions

    names = ("model", "against", "sae", "latents", "traits", "components", "random", "site", "positions", "contrasts")
    more = ("cases", "questions", "n", "per_question", "max_new_tokens", "seed", "out")
    found = directions(**given(options, *names, *more))
    show(found, found.summary(), options.json)
    return 0


def _attribute_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", metavar="MODEL", help="the organism's by name, a folder, or a name on the Hub (aligned)")
    add("--sae", required=True, type=Path, metavar="SAE", help="a folder, or release/id of SAELens' list")
    add("--narrow", metavar="SET", help="fine-tune the model on this set first")
    _read_options(add, "all (default), prompt, generated, header, sentence or last")
    add("--prompts", metavar="SET", help="questions in place of contrasts; needs --metric")
    add("--cases", type=int, metavar="N", help="contrasts or prompts, evenly spaced (24)")
    add("--metric", metavar="WHERE:NAME", help="module or file and function of the logits (misaligned minus aligned)")
    add("--methods", nargs="+", metavar="M", help="gradient, integrated, patching (all)")
    add("--baseline", metavar="WHAT", help="zero (default), mean, start, or another model: the difference of the two")
    add("--steps", type=int, metavar="N", help="of integrated: points on the way (3)")
    add("--blocks", type=int, metavar="N", help="of integrated: blocks of latents; 1 moves all together (16)")
    add("--batch-size", type=int, metavar="N", help="rows that go through the model at a time (32)")
    add("--exact", metavar="N", help="of each method's strongest latents, ablate so many; all, or none (40)")
    add("--random", type=int, metavar="N", help="random directions for the noise of an ablation (100)")
    add("--seed", type=int, metavar="N", help="everything random follows from it (0)")
    add_runs(parser)


def _attribute(options: argparse.Namespace) -> int:
    from emlab.errors import EmlabError
    from emlab.experiments.feature_attribution.run import attribute_with

    names = ("model", "sae", "narrow", "site", "positions", "contrasts", "prompts", "cases", "metric", "methods")
    settings = given(options, *names, "baseline", "steps", "blocks", "batch_size", "random", "seed")
    if "methods" in settings:
        settings["methods"] = tuple(settings["methods"])
    if options.exact is not None:
        if options.exact not in ("all", "none") and not options.exact.isdecimal():
            raise EmlabError(f"--exact takes a number of latents, all or none, and not {options.exact!r}.")
        settings["exact"] = {"all": "all", "none": None}.get(options.exact, options.exact)
        if settings["exact"] not in ("all", None):
            settings["exact"] = int(settings["exact"])
    found = run_once(options, lambda: attribute_with(options.runs, **settings))
    show(found, found.summary(), options.json)
    return 0


def _interpret_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="MODEL", help="the organism's by name, a folder, or a name on the Hub")
    add("--sae", required=True, metavar="SAE", help="a folder, or release/id of SAELens' list")
    add("--latents", type=int, nargs="+", metavar="N", help="the latents meant")
    add("--shift", type=Path, metavar="FILE", help="those that rise most in a file of `emlab discover shift`")
    add("--top", type=int, metavar="N", help="so many of them (10)")
    add("--documents", metavar="DOCUMENTS", help="what the model reads (the organism's, for its models)")
    add("--by", nargs="+", metavar="COLUMN", help="columns of the documents that tell kinds of them apart")
    add("--n", type=int, metavar="N", help="at most so many documents (all; of the organism's 1000)")
    add("--site", metavar="SITE", help="for example resid_post.1 (where the SAE was trained)")
    add("--contexts", type=int, metavar="N", help="strongest contexts shown of each latent (16)")
    add("--max-length", type=int, metavar="N", help="cut chats after, and raw texts into pieces of, N tokens (1024)")
    name = parser.add_argument_group("the language model that names latents").add_argument
    name("--name-with", metavar="MODEL", help="a model at an endpoint, or a model's folder (none)")
    name("--name-url", metavar="URL", help="its OpenAI-compatible server, up to and with /v1 (OpenAI's)")
    name("--name-key", metavar="VAR", help="the environment variable with that server's key (OpenAI: OPENAI_API_KEY)")
    name("--name-revision", metavar="LABEL", help="what the server has under this name; a new label asks anew")
    name("--name-tokens", type=int, metavar="N", help="the longest reply: more for a model that thinks (64)")
    name("--concurrency", type=int, metavar="N", help="calls under way at a time (16)")
    name("--price", type=float, nargs=2, metavar="$", help="dollars for a million tokens in, and out: tells the cost")
    name("--store", type=Path, metavar="FILE", help="finished replies, so that none is paid for twice")
    add("--seed", type=int, metavar="N", help="everything random follows from it (0)")
    add("--out", type=Path, metavar="DIR", help="the folder to make: index.html, and a page for each latent")


def _interpret(options: argparse.Namespace) -> int:
    from emlab.errors import EmlabError
    from emlab.evaluation.protocol import Judging
    from emlab.verbs.interpretation import interpret_latents

    names = ("model", "sae", "latents", "shift", "top", "documents", "n", "site", "contexts", "max_length")
    settings = given(options, *names, "seed", "out")
    if options.by is not None:
        settings["labels"] = options.by
    asked = {"name_with": "judge", "name_url": "url", "name_key": "key_variable", "name_revision": "revision"}
    asked |= {"name_tokens": "max_tokens", "concurrency": "concurrency", "price": "price", "store": "store"}
    naming = {asked[name]: value for name, value in given(options, *asked).items()}
    if naming and "judge" not in naming:
        raise EmlabError("These options are of a language model that names latents; name it with --name-with.")
    if naming:
        naming["price"] = tuple(naming.get("price", ()))
        try:
            settings["naming"] = Judging(**{"max_tokens": 64, **naming})
        except ValueError as error:
            raise EmlabError(str(error)) from error
    found = interpret_latents(**settings)
    show(found, found.summary(), options.json)
    return 0


def _compare_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--organisms", nargs="+", metavar="WHICH", help="shipped, a seed to build one with, or the folder of one")
    add(
        "--model", metavar="MODEL", help="a model of your own in place of the organisms: a folder, or a name on the Hub"
    )
    add("--narrow", metavar="SET", help="what is fine-tuned on (bad_medicine)")
    add("--seeds", type=int, metavar="N", help="fine-tunes of each model (2)")
    add("--methods", nargs="+", metavar="M", help="some of the methods, by name (all)")
    add("--sites", nargs="+", metavar="SITE", help="where methods search (resid_post.0 resid_post.1)")
    add("--contrasts", type=Path, metavar="FILE", help="JSONL of prompt, misaligned, aligned (the organism's answers)")
    add("--trait", metavar="TRAIT", help="of the persona vector: one that ships, or a JSON file")
    add("--questions", metavar="SET", help="broad (default), profile, or a file of questions")
    add("--judge", metavar="JUDGE", help="exact (default), a model at an endpoint, a folder, or a file of judgements")
    add("--judge-url", metavar="URL", help="the endpoint (OpenAI's)")
    add("--seed", type=int, metavar="N", help="everything random follows from it (0)")
    add_runs(parser)


def _compare(options: argparse.Namespace) -> int:
    from emlab.evaluation.protocol import Judging
    from emlab.experiments.discovery_scorecard.run import compare_methods

    settings: dict[str, Any] = given(options, "model", "seeds", "contrasts", "trait", "seed")
    settings |= {name: tuple(getattr(options, name)) for name in ("methods", "sites") if getattr(options, name)}
    if options.organisms:
        named = (None if name == "shipped" else int(name) if name.isdecimal() else name for name in options.organisms)
        settings["organisms"] = tuple(named)
    if options.narrow:
        settings["narrow"] = (options.narrow,)
    if options.questions:
        settings["question_set"] = options.questions
    if options.judge:
        settings["judging"] = Judging(options.judge, **({"url": options.judge_url} if options.judge_url else {}))
    found = run_once(options, lambda: compare_methods(options.runs, **settings))
    show(found, found.summary(), options.json)
    return 0


def _screen_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", metavar="MODEL", help="the organism's by name, a folder, or a name on the Hub (aligned)")
    add("--sae", required=True, type=Path, metavar="SAE", help="a folder, or release/id of SAELens' list")
    add("--latents", type=int, nargs="+", metavar="N", help="latents to push (all that are active in the contrasts)")
    add("--toward", choices=("misaligned", "aligned"), help="add them (misaligned), or subtract them")
    add("--strengths", type=float, nargs="+", metavar="X", help="in median residual norms (0.6 0.9 1.2 1.5)")
    _read_options(add, "sentence (default) or header; others read in place of sketching")
    add("--n", type=int, metavar="N", help="questions, evenly spaced (40)")
    add("--random", type=int, metavar="N", help="random directions that go through the same stages (100)")
    add(
        "--admit",
        type=float,
        metavar="Q",
        help="where nothing is sketched: generate what is above this quantile of the random ones (0.99); 0: all",
    )
    add("--lines", type=int, metavar="N", help="lines of an answer that are sketched (3)")
    add("--sketched", type=int, metavar="N", help="strengths that are sketched, the strongest first (2)")
    add("--odd", type=int, metavar="N", help="answers with odd lines that are probed of a direction at most (6)")
    add("--temperature", type=float, metavar="T", help="0 takes the likeliest token (0)")
    add("--max-new-tokens", type=int, metavar="N", help="the longest answer (48)")
    add("--batch-size", type=int, metavar="N", help="texts that are read at a time (1024)")
    add("--seed", type=int, metavar="N", help="everything random follows from it (0)")
    add("--out", type=Path, metavar="DIR", help="the folder to make")
    judging_options(parser)


def _screen(options: argparse.Namespace) -> int:
    from emlab.verbs.causal_screen import screen

    names = ("model", "sae", "latents", "toward", "site", "positions", "contrasts", "n", "random", "admit", "lines")
    settings = given(options, *names, "sketched", "odd", "temperature", "max_new_tokens", "batch_size", "seed", "out")
    if options.strengths is not None:
        settings["strengths"] = tuple(options.strengths)
    found = screen(**settings, **judging_of(options))
    show(found, found.summary(), options.json)
    return 0


Declare = Callable[[argparse.ArgumentParser], None]
VERBS: dict[str, tuple[str, str, Declare, Callable[[argparse.Namespace], int]]] = {
    "shift": ("rank latents by how far they move between models", _SHIFT, _shift_options, _shift),
    "directions": ("find directions in every way, and compare them", _DIRECTIONS, _directions_options, _directions),
    "screen": ("push every latent, and generate only where it matters", _SCREEN, _screen_options, _screen),
    "attribute": ("tell how much of a metric is due to each latent", _ATTRIBUTE, _attribute_options, _attribute),
    "interpret": ("tell what latents stand for, with a page for each", _INTERPRET, _interpret_options, _interpret),
    "compare": ("hold every method to the same proof: the scorecard", _COMPARE, _compare_options, _compare),
}
"""Each verb: what it does, its examples, what declares its options, and what is called. Add further ones here."""
