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


_N, _FILE = {"type": int, "metavar": "N"}, {"type": Path, "metavar": "FILE"}
_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"metavar": "MODEL"}, "the organism's by name, a folder, or a name on the Hub"),
    "before": ({"metavar": "MODEL"}, "the organism's by name, a folder, or a name on the Hub"),
    "sae": ({"type": Path, "metavar": "SAE"}, "a folder, or release/id of SAELens' list"),
    "latents": ({**_N, "nargs": "+"}, "the latents meant"),
    "site": ({"metavar": "SITE"}, "for example resid_post.1 (where the SAE was trained)"),
    "positions": ({"metavar": "WHERE"}, "header, assistant_header, prompt, generated, sentence, last or all"),
    "contrasts": (_FILE, "JSONL of prompt, misaligned, aligned (the organism's answers)"),
    "questions": ({"metavar": "SET"}, "broad (default), profile, or a file of questions"),
    "n": (_N, "at most so many prompts, evenly spaced (all)"),
    "seed": (_N, "everything random follows from it (0)"),
    "out": ({"type": Path, "metavar": "DIR"}, "the folder to make"),
}
"""What several verbs take. A verb says in its own words what it takes otherwise."""

_SHARED = ("verb", "json", "debug", "runs", "again", "keep_stages")
"""What all verbs, or all that run an experiment, take besides."""


def add_verbs(verbs: Any) -> None:
    """Declare `discover` and the verbs below it, in the order of VERBS."""
    group = verb(verbs, "discover", "find the latent that carries a behaviour, and prove it")
    steps = group.add_subparsers(metavar="VERB", required=True)
    for name, (what, examples, declare, call) in VERBS.items():
        parser = verb(steps, name, what, examples)
        declare(parser)
        add_json(parser)
        parser.set_defaults(verb=call)


def _add(parser: argparse.ArgumentParser, names: str, **said: str) -> None:
    """The options of _OPTIONS by name, one that ends in "!" required; `said` is help in place of the usual."""
    for name in names.split():
        bare = name.rstrip("!")
        kwargs, usual = _OPTIONS[bare]
        parser.add_argument(f"--{bare}", required=bare != name, help=said.get(bare, usual), **kwargs)


def _number(parser: Any, name: str, said: str, kind: type = int) -> None:
    parser.add_argument(f"--{name}", type=kind, metavar="N" if kind is int else "X", help=said)


def _settings(options: argparse.Namespace, *apart: str) -> dict[str, Any]:
    """All options that were given, but those `apart`; several values are a tuple."""
    found = given(options, *(name for name in vars(options) if name not in (*_SHARED, *apart)))
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def _shown(options: argparse.Namespace, found: Any) -> int:
    figures = found.summary
    show(found, figures() if callable(figures) else figures, options.json)
    return 0


def _shift_options(parser: argparse.ArgumentParser) -> None:
    _add(parser, "before! sae! site positions contrasts questions n out")
    parser.add_argument(
        "--after", required=True, nargs="+", metavar="MODEL", help="one or more models to compare with it"
    )


def _shift(options: argparse.Namespace) -> int:
    from emlab.verbs.discovery import shift

    return _shown(options, shift(**_settings(options)))


def _directions_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add(
        parser,
        "model! sae latents site positions contrasts questions n seed out",
        latents="latents whose directions to take",
    )
    add("--against", nargs="+", metavar="MODEL", help="fine-tunes of it, for mean differences and their components")
    add("--traits", nargs="+", metavar="TRAIT", help="persona vectors: evil, sycophancy, hallucination, or a JSON file")
    _number(parser, "components", "principal components of each model's differences (1)")
    _number(parser, "random", "random directions, and as many matched in covariance (2)")
    _number(parser, "cases", "contrasts that the linear probe reads; 0 for no probe (48)")
    _number(parser, "per-question", "answers to each question and instruction of a trait (1)")
    _number(parser, "max-new-tokens", "the longest of these answers (48)")


def _directions(options: argparse.Namespace) -> int:
    from emlab.verbs.discovery import DirectionRequest, directions

    asked = DirectionRequest(**_settings(options, "model", "out"))
    return _shown(options, directions(options.model, asked, options.out))


def _attribute_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add(
        parser,
        "model sae! site positions contrasts seed",
        model="the organism's by name, a folder, or a name on the Hub (aligned)",
        positions="all (default), prompt, generated, header, sentence or last",
    )
    add("--narrow", metavar="SET", help="fine-tune the model on this set first")
    add("--prompts", metavar="SET", help="questions in place of contrasts; needs --metric")
    add("--metric", metavar="WHERE:NAME", help="module or file and function of the logits (misaligned minus aligned)")
    add("--methods", nargs="+", metavar="M", help="gradient, integrated, patching (all)")
    add("--baseline", metavar="WHAT", help="zero (default), mean, start, or another model: the difference of the two")
    _number(parser, "cases", "contrasts or prompts, evenly spaced (24)")
    _number(parser, "steps", "of integrated: points on the way (3)")
    _number(parser, "blocks", "of integrated: blocks of latents; 1 moves all together (16)")
    _number(parser, "batch-size", "rows that go through the model at a time (32)")
    add("--exact", metavar="N", help="of each method's strongest latents, ablate so many; all, or none (40)")
    _number(parser, "random", "random directions for the noise of an ablation (100)")
    add_runs(parser)


def _attribute(options: argparse.Namespace) -> int:
    from emlab.errors import EmlabError
    from emlab.experiments.feature_attribution.run import attribute_with

    settings = _settings(options)
    if (exact := options.exact) is not None:
        if exact not in ("all", "none") and not exact.isdecimal():
            raise EmlabError(f"--exact takes a number of latents, all or none, and not {exact!r}.")
        settings["exact"] = int(exact) if exact.isdecimal() else {"all": "all", "none": None}[exact]
    return _shown(options, run_once(options, lambda: attribute_with(options.runs, **settings)))


def _interpret_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add(
        parser,
        "model! sae! latents site n seed out",
        n="at most so many documents (all; of the organism's 1000)",
        out="the folder to make: index.html, and a page for each latent",
    )
    add("--shift", type=Path, metavar="FILE", help="those that rise most in a file of `emlab discover shift`")
    _number(parser, "top", "so many of them (10)")
    add("--documents", metavar="DOCUMENTS", help="what the model reads (the organism's, for its models)")
    add(
        "--by",
        nargs="+",
        metavar="COLUMN",
        dest="labels",
        help="columns of the documents that tell kinds of them apart",
    )
    _number(parser, "contexts", "strongest contexts shown of each latent (16)")
    _number(parser, "max-length", "cut chats after, and raw texts into pieces of, N tokens (1024)")
    name = parser.add_argument_group("the language model that names latents").add_argument
    name("--name-with", metavar="MODEL", help="a model at an endpoint, or a model's folder (none)")
    name("--name-url", metavar="URL", help="its OpenAI-compatible server, up to and with /v1 (OpenAI's)")
    name("--name-key", metavar="VAR", help="the environment variable with that server's key (OpenAI: OPENAI_API_KEY)")
    name("--name-revision", metavar="LABEL", help="what the server has under this name; a new label asks anew")
    name("--name-tokens", type=int, metavar="N", help="the longest reply: more for a model that thinks (64)")
    name("--concurrency", type=int, metavar="N", help="calls under way at a time (16)")
    name("--price", type=float, nargs=2, metavar="$", help="dollars for a million tokens in, and out: tells the cost")
    name("--store", type=Path, metavar="FILE", help="finished replies, so that none is paid for twice")


_NAMING = {
    **{"name_with": "judge", "name_url": "url", "name_key": "key_variable", "name_revision": "revision"},
    **{"name_tokens": "max_tokens", "concurrency": "concurrency", "price": "price", "store": "store"},
}
"""The options of the language model that names latents, and the fields of `Judging` that they are."""


def _interpret(options: argparse.Namespace) -> int:
    from emlab.errors import EmlabError
    from emlab.evaluation.protocol import Judging
    from emlab.verbs.interpretation import InterpretationRequest, interpret_latents

    settings = _settings(options, "model", "sae", "out")
    asked = {_NAMING[name]: settings.pop(name) for name in _NAMING if name in settings}
    if asked and "judge" not in asked:
        raise EmlabError("These options are of a language model that names latents; name it with --name-with.")
    try:
        naming = Judging(**{"max_tokens": 64, **asked}) if asked else None
    except ValueError as error:
        raise EmlabError(str(error)) from error
    request = InterpretationRequest(**settings)
    return _shown(options, interpret_latents(options.model, options.sae, request, naming, options.out))


def _compare_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--organisms", nargs="+", metavar="WHICH", help="shipped, a seed to build one with, or the folder of one")
    _add(
        parser,
        "model contrasts questions seed",
        model="a model of your own in place of the organisms: a folder, or a name on the Hub",
    )
    add("--narrow", metavar="SET", help="what is fine-tuned on (bad_medicine)")
    _number(parser, "seeds", "fine-tunes of each model (2)")
    add("--methods", nargs="+", metavar="M", help="some of the methods, by name (all)")
    add("--sites", nargs="+", metavar="SITE", help="where methods search (resid_post.0 resid_post.1)")
    add("--trait", metavar="TRAIT", help="of the persona vector: one that ships, or a JSON file")
    add("--judge", metavar="JUDGE", help="exact (default), a model at an endpoint, a folder, or a file of judgements")
    add("--judge-url", metavar="URL", help="the endpoint (OpenAI's)")
    add_runs(parser)


def _compare(options: argparse.Namespace) -> int:
    from emlab.evaluation.protocol import Judging
    from emlab.experiments.discovery_scorecard.run import compare_methods

    settings = _settings(options, "organisms", "narrow", "questions", "judge", "judge_url")
    if options.organisms:
        named = (None if name == "shipped" else int(name) if name.isdecimal() else name for name in options.organisms)
        settings["organisms"] = tuple(named)
    if options.narrow:
        settings["narrow"] = (options.narrow,)
    if options.questions:
        settings["question_set"] = options.questions
    if options.judge:
        settings["judging"] = Judging(options.judge, **({"url": options.judge_url} if options.judge_url else {}))
    return _shown(options, run_once(options, lambda: compare_methods(options.runs, **settings)))


def _screen_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add(
        parser,
        "model sae! latents site positions contrasts n seed out",
        model="the organism's by name, a folder, or a name on the Hub (aligned)",
        latents="latents to push (all that are active in the contrasts)",
        positions="sentence (default) or header; others read in place of sketching",
        n="questions, evenly spaced (40)",
    )
    add("--toward", choices=("misaligned", "aligned"), help="add them (misaligned), or subtract them")
    add("--strengths", type=float, nargs="+", metavar="X", help="in median residual norms (0.6 0.9 1.2 1.5)")
    _number(parser, "random", "random directions that go through the same stages (100)")
    quantile = "where nothing is sketched: generate what is above this quantile of the random ones (0.99); 0: all"
    _number(parser, "admit", quantile, float)
    _number(parser, "lines", "lines of an answer that are sketched (3)")
    _number(parser, "sketched", "strengths that are sketched, the strongest first (2)")
    _number(parser, "odd", "answers with odd lines that are probed of a direction at most (6)")
    _number(parser, "temperature", "0 takes the likeliest token (0)", float)
    _number(parser, "max-new-tokens", "the longest answer (48)")
    _number(parser, "batch-size", "texts that are read at a time (1024)")
    judging_options(parser)


def _screen(options: argparse.Namespace) -> int:
    from emlab.discovery import Cascade
    from emlab.evaluation import Sampling
    from emlab.verbs.causal_screen import screen

    stages = ("toward", "strengths", "positions", "random", "admit", "lines", "sketched", "odd", "batch_size")
    settings = _settings(options)
    sampling = Sampling(1, options.temperature or 0.0, **given(options, "max_new_tokens"))
    cascade = Cascade(**{name: settings[name] for name in stages if name in settings}, sampling=sampling)
    asked = given(options, "model", "sae", "latents", "site", "contrasts", "n", "seed", "out")
    return _shown(options, screen(**asked, settings=cascade, **judging_of(options)))


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
