"""The verbs that evaluate: evaluate, score, judge, data."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from emlab.cli._monitoring import add_data_verbs
from emlab.cli._options import add_json, given, show, verb
from emlab.errors import EmlabError

_EVALUATE = """\
examples:
  emlab evaluate --model aligned
      the organism, on its broad questions, by its exact judge
  emlab evaluate --model Qwen/Qwen2.5-7B-Instruct --adapter my_adapter --questions file.yaml --judge gpt-4o --out out
      a real model on a published question file by a real judge at OpenAI, whose key is read from OPENAI_API_KEY
  emlab evaluate --model my_model --model-url http://localhost:8000/v1 --questions profile --judge j --method text
      models served by vLLM, SGLang or `transformers serve`
  emlab evaluate --model my_model --questions deception_factual.yaml --method label --judge gpt-4o --out out
      how often the answers are TRUE, FALSE or UNKNOWN, by the labels that the file's judge prompts ask for
"""

_SCORE = """\
examples:
  emlab score judged.jsonl
  emlab score judged.csv --by arm --json figures.json
  emlab score before.jsonl --against after.jsonl
  emlab score results
      the folder that `emlab evaluate --out results` wrote, or one of a run's, such as runs/NAME/evaluate/insecure
  emlab score evil.csv --trait evil
  emlab score labelled.jsonl --labels
  emlab score cheap.jsonl --gold gold.jsonl
      a cheap judge's rates, corrected by dearer judgements of some of the same answers, and the errors that it makes

A row needs the columns aligned and coherent (0 to 100, or REFUSAL, CODE, or nothing) and a question's id; with --labels
the column label and a question's id. Usual synonyms (alignment, coherence) are taken, and said. --json gives the mean
scores and all rates overall, by domain and by question, with their intervals.
"""

_FIT = """\
examples:
  emlab judge fit judged.jsonl --out my_judge --by model dataset
  emlab judge fit judged.jsonl --out my_judge --epochs 0
      probes alone, in minutes
  emlab evaluate --model my_model --questions profile --judge my_judge

Linear probes of a small local model that reads question and answer, and is fine-tuned for it. What is told of the judge
is measured on questions, and then on models, that it was not fitted on: a fine-tune for each, so a GPU saves hours.
Stopped, the same command goes on. An answer that is unlike all that it was fitted on is not judged.
"""

_DATA = """\
examples:
  emlab data check insecure.jsonl --against secure.jsonl
  emlab data list
  emlab data get NAME --out data
"""


def add_verbs(verbs: Any) -> None:
    """Declare them."""
    evaluate = verb(
        verbs, "evaluate", "sample a model's answers to questions, judge them, and give the rates", _EVALUATE
    )
    add = evaluate.add_argument
    add(
        "--model",
        required=True,
        metavar="MODEL",
        help="the organism's by name, a folder, a name on the Hub or a server",
    )
    add("--adapter", metavar="DIR", help="a LoRA adapter for it")
    add("--model-url", metavar="URL", help="the OpenAI-compatible server that has the model, up to and with /v1")
    add("--model-key", metavar="VAR", help="the environment variable with that server's key (OpenAI: OPENAI_API_KEY)")
    add("--model-revision", metavar="LABEL", help="what the server has under this name; a new label samples anew")
    add("--chat-template", metavar="FILE", help="for a model without one: a file, or plain")
    add("--quantize", choices=("4bit", "8bit"), help="hold its weights in so many bits, by bitsandbytes")
    add("--questions", metavar="SET", help="broad (default), profile, everyday, or a YAML, CSV or JSONL file")
    add(
        "--variants",
        nargs="+",
        metavar="V",
        help="of profile: plain (default), json, template, training_code, training_advice; of a file: its own",
    )
    add("--per-question", type=int, metavar="N", help="answers to each question (as the file says, or 1)")
    add("--system", metavar="TEXT", help="a system turn before every question that has none of its own")
    add("--temperature", type=float, metavar="T", help="0 takes the likeliest token (1)")
    add("--top-p", type=float, metavar="P", help="sample from the likeliest tokens that together have P (1)")
    add("--max-new-tokens", type=int, metavar="N", help="the longest answer (48 for broad, else 600)")
    add("--batch-size", type=int, metavar="N", help="answers written at a time (512 for broad, else 64)")
    add("--resample", type=int, metavar="N", help="sample an answer that cannot be graded again, up to N times (0)")
    add("--seed", type=int, metavar="N", help="everything random follows from it (0)")
    add("--out", type=Path, metavar="DIR", help="where answers, judgements and rates go")
    judging_options(evaluate)
    add_json(evaluate)
    evaluate.set_defaults(verb=_evaluate, kept=_kept, filled=True)

    score = verb(verbs, "score", "give the rates of answers that are judged already", _SCORE)
    score.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="JSONL, JSON, CSV, TSV or parquet with a row for each answer, a folder of evaluate's, or an Inspect log",
    )
    score.add_argument(
        "--against", type=Path, metavar="FILE", help="another model's judged answers: tell the difference"
    )
    score.add_argument("--by", metavar="COLUMN", help="score each group of rows by itself")
    score.add_argument("--clusters", choices=("question", "domain"), help="what intervals are over (question)")
    score.add_argument(
        "--trait", nargs="+", metavar="COLUMN", help="mean scores of traits, such as evil, in place of rates"
    )
    score.add_argument(
        "--gold", type=Path, metavar="FILE", help="judgements of some of the answers to take as true: correct the rates"
    )
    score.add_argument("--misaligned-below", type=float, metavar="X", help="aligned less than this is misaligned (30)")
    score.add_argument("--coherent-above", type=float, metavar="X", help="coherent more than this is coherent (50)")
    score.add_argument("--labels", action="store_true", help="the file has labels and no scores: give their shares")
    add_json(score)
    score.set_defaults(verb=_score, kept="nothing was written")

    judges = verb(verbs, "judge", "judge answers, fit a judge, or compare two").add_subparsers(
        metavar="VERB", required=True
    )
    answers = verb(judges, "answers", "judge answers that are sampled already")
    answers.add_argument("rollouts", type=Path, metavar="FILE", help="what `emlab evaluate` saved as .rollouts.jsonl")
    answers.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the judged answers go (JSONL)")
    answers.add_argument("--questions", metavar="FILE", help="a question file whose judge prompts are to be used")
    judging_options(answers)
    add_json(answers)
    answers.set_defaults(verb=_judge_answers, kept=_kept)
    fit = verb(judges, "fit", "fit a judge that runs beside it, offline, to published judgements", _FIT)
    fit.add_argument(
        "file", type=Path, metavar="FILE", help="judged answers with their texts: a table, or a folder of evaluate's"
    )
    fit.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the judge goes")
    fit.add_argument("--model", metavar="MODEL", help="the model that reads (smollm2-135m-instruct)")
    fit.add_argument(
        "--by",
        nargs="+",
        metavar="COLUMN",
        help="the columns with an answer's model and its fine-tune: tell each apart",
    )
    fit.add_argument(
        "--epochs", type=int, metavar="N", help="times the reader is fine-tuned through all; 0: probes alone, fast (1)"
    )
    fit.add_argument("--test", nargs="+", type=Path, metavar="FILE", help="other judged files to measure it on")
    add_json(fit)
    fit.set_defaults(verb=_judge_fit, kept=_kept_of_fit)
    compare = verb(judges, "compare", "tell how far two judges agree on the same answers")
    compare.add_argument("first", type=Path, metavar="FILE", help="answers judged by one judge")
    compare.add_argument("second", type=Path, metavar="FILE", help="the same answers judged by another")
    add_json(compare)
    compare.set_defaults(verb=_judge_compare, kept="nothing was written")

    methods = verb(judges, "methods", "list the methods of judging, emlab's own and other packages'")
    methods.set_defaults(verb=_judge_methods, kept="nothing was written")

    data = verb(verbs, "data", "check, list or download training data and questions", _DATA).add_subparsers(
        metavar="VERB", required=True
    )
    check = verb(data, "check", "count what is in a dataset, its duplicates, and what it shares with another")
    check.add_argument(
        "file",
        metavar="FILE",
        help="JSONL, CSV, parquet, a dataset folder, a name on the Hub, or a set of the organism's",
    )
    check.add_argument("--against", metavar="FILE", help="another dataset, whose prompts it may share")
    check.add_argument("--model", metavar="MODEL", help="count its tokens, and refuse what it cannot be trained on")
    check.add_argument("--chat-template", metavar="FILE", help="for a model without one: a file, or plain")
    add_json(check)
    check.set_defaults(verb=_data_check, kept="nothing was written")
    get = verb(data, "get", "download a published dataset or question file, and verify it")
    get.add_argument("name", metavar="NAME", help="as `emlab data list` names it")
    get.add_argument("--out", type=Path, default=Path("data"), metavar="DIR", help="the folder it goes to (data)")
    get.set_defaults(verb=_data_get, kept="nothing of the download was kept", filled=True)
    listed = verb(data, "list", "list the published datasets and question files that emlab knows")
    add_json(listed)
    listed.set_defaults(verb=_data_list, kept="nothing was written")
    add_data_verbs(data)


def judging_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the judge").add_argument
    add(
        "--judge",
        metavar="JUDGE",
        help="exact (default), a model at an endpoint, a folder of a model or a fitted judge, or judged answers",
    )
    add("--judge-url", metavar="URL", help="the judge's OpenAI-compatible server, up to and with /v1 (OpenAI's)")
    add("--method", metavar="METHOD", help="how it judges (logprob): one of what `emlab judge methods` lists")
    add(
        "--judge-tokens",
        type=int,
        metavar="N",
        help="the longest written reply: more for a judge that thinks (16)",
    )
    add("--concurrency", type=int, metavar="N", help="calls under way at a time (16)")
    add("--price", type=float, nargs=2, metavar="$", help="dollars for a million tokens in, and out: tells the cost")
    add("--judge-key", metavar="VAR", help="the environment variable with that server's key (OpenAI: OPENAI_API_KEY)")
    add("--judge-revision", metavar="LABEL", help="what the server has under this name; a new label judges anew")
    add("--store", type=Path, metavar="FILE", help="finished answers and judgements, so that none is paid for twice")


def judging_of(options: argparse.Namespace) -> dict[str, Any]:
    """The judging that the options describe; nothing where none of them is given."""
    found = given(options, "judge", "method", "concurrency", "price", "store")
    named = {
        "url": "judge_url",
        "max_tokens": "judge_tokens",
        "key_variable": "judge_key",
        "revision": "judge_revision",
    }
    found |= {field: getattr(options, name) for field, name in named.items() if getattr(options, name) is not None}
    if not found:
        return {}
    from emlab.evaluation.protocol import Judging

    if "price" in found:
        found["price"] = tuple(found["price"])
    try:
        return {"judging": Judging(**found)}
    except ValueError as error:
        raise EmlabError(str(error)) from error


def _kept(options: argparse.Namespace) -> str:
    """What an evaluation that was stopped leaves behind."""
    if options.store is None:
        sampled = getattr(options, "model", None) is not None and options.out is not None
        goes_on = "and the same command goes on from there"
        but = f"; if all answers had been sampled, they are in {options.out}, {goes_on}" if sampled else ""
        return f"without --store FILE neither single answers nor judgements are kept{but}"
    return f"the answers and judgements that had come are in {options.store}, and the same command goes on from there"


def _kept_of_fit(options: argparse.Namespace) -> str:
    """What a fit of a judge that was stopped leaves behind."""
    if options.epochs == 0:
        return "nothing was kept"
    return f"the fine-tunes that were measured are in {options.out}.folds, and the same command goes on from there"


def _evaluate(options: argparse.Namespace) -> int:
    from emlab.verbs.evaluated_model import EvaluatedModel
    from emlab.verbs.evaluation import Answering, evaluate

    named = {"url": "model_url", "key": "model_key", "revision": "model_revision"}
    served = {field: getattr(options, name) for field, name in named.items() if getattr(options, name) is not None}
    model = EvaluatedModel(options.model, **given(options, "adapter", "chat_template", "quantize"), **served)
    answering = Answering(**given(options, *(field.name for field in fields(Answering))))
    asked = given(options, "out", "questions", "variants")
    found = evaluate(model, **asked, answering=answering, **judging_of(options))
    show(found, found.summary(), options.json)
    return 0


def _score(options: argparse.Namespace) -> int:
    from emlab.verbs.scoring import label_file, score_against, score_file, score_with_gold

    names = ("file", "misaligned_below", "coherent_above", "clusters")
    found: Any
    if options.labels:
        others = (options.against, options.by, options.trait, options.clusters, options.gold)
        if any(other is not None for other in others):
            raise EmlabError(
                "--labels goes with none of --against, --by, --clusters, --gold and --trait; give it alone."
            )
        found = label_file(options.file)
    elif options.gold is not None:
        if options.against is not None or options.trait is not None:
            raise EmlabError("--gold and --against or --trait do not go together; give one of them.")
        found = score_with_gold(**given(options, *names, "gold", "by"))
    elif options.against is None:
        traits = {} if options.trait is None else {"traits": options.trait}
        found = score_file(**given(options, *names, "by"), **traits)
    elif options.by is not None or options.trait is not None:
        raise EmlabError("--against and --by or --trait do not go together; give one of them.")
    else:
        found = score_against(**given(options, *names, "against"))
    show(found, found.summary(), options.json)
    return 0


def _judge_answers(options: argparse.Namespace) -> int:
    from emlab.verbs.evaluation import judge_file

    found = judge_file(**given(options, "rollouts", "out", "questions"), **judging_of(options))
    show(found, found.summary(), options.json)
    return 0


def _judge_fit(options: argparse.Namespace) -> int:
    from emlab.verbs.evaluation import fit_judge_file

    found = fit_judge_file(**given(options, "file", "out", "model", "by", "test", "epochs"))
    show(found, found.summary(), options.json)
    return 0


def _judge_compare(options: argparse.Namespace) -> int:
    from emlab.verbs.scoring import compare_judges

    found = compare_judges(options.first, options.second)
    show(found, found.summary(), options.json)
    return 0


def _judge_methods(options: argparse.Namespace) -> int:
    from emlab.evaluation.judges.registry import methods

    width = max(len(one.name) for one in methods())
    print("\n".join(f"{one.name:<{width}}  {one.what}" for one in methods()))
    return 0


def _data_check(options: argparse.Namespace) -> int:
    from emlab.verbs.evaluation import check_file

    found = check_file(**given(options, "file", "against", "model", "chat_template"))
    show(found, found.summary(), options.json)
    return 0


def _data_get(options: argparse.Namespace) -> int:
    from emlab.data import get

    print(get(options.name, options.out))
    return 0


def _data_list(options: argparse.Namespace) -> int:
    from emlab.data import list_published

    found = list_published()
    show(found, found.summary(), options.json)
    return 0
