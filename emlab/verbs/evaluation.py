"""Evaluate any model on any questions by any judge; judge answers that are there; check a dataset.

What `emlab evaluate`, `emlab judge answers` and `emlab data check` call.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from emlab import __version__, artifacts, organism
from emlab.data import DataCheck, QuestionSet, check_data, read_examples
from emlab.errors import EmlabError
from emlab.evaluation import Score, judge, sample, save_judged, score_judged
from emlab.evaluation.judges import tables
from emlab.evaluation.judges.probes import ProbeJudge
from emlab.evaluation.judges.recorded import judged_in
from emlab.evaluation.judges.registry import Questions
from emlab.evaluation.judges.table_files import file_in
from emlab.evaluation.label_shares import LabelShares
from emlab.evaluation.labelling import label_answers, save_labelled
from emlab.evaluation.probing import probe
from emlab.evaluation.protocol import BROAD, Judging, judge_of, labeller_of, method_of, questions_of
from emlab.evaluation.resampling import sample_valid
from emlab.evaluation.rollouts import Rollouts, file_name
from emlab.experiments.material.judging import foreign_answers
from emlab.experiments.material.models import folder_of
from emlab.models.loading import load_tokenizer
from emlab.reporting import Page, evaluation_lead, evaluation_sections, label_lead, label_sections
from emlab.training.judge_fitting import fit_judge
from emlab.verbs.evaluated_model import EvaluatedModel
from emlab.verbs.telling import telling

FEW = 64
"""Answers that a model of unknown size writes at a time. Memory grows with it: keys and values of a 7B model take about
0.1 to 0.5 MB a token, so 64 answers of 600 tokens 4 to 20 GB."""


@dataclass(frozen=True)
class Answering:
    """How the answers of an evaluation are sampled."""

    per_question: int | None = None
    """Answers to each question; None asks as often as the file says, and else once."""
    seed: int = 0
    """Everything random follows from it."""
    temperature: float = 1.0
    """0 takes the likeliest token."""
    max_new_tokens: int | None = None
    """The longest answer; None: 48 tokens for the broad questions and 600 for all others."""
    top_p: float = 1.0
    """Sample from the likeliest tokens that together reach this share."""
    system: str | None = None
    """A system turn before every question that has none of its own."""
    batch_size: int | None = None
    """Answers that a model held here writes at a time; None: 512 to the broad questions, 64 to all others. Fewer take
    less memory."""
    resample: int = 0
    """How often invalid answers are sampled again."""

    def of(self, name: str, questions: Questions) -> Answering:
        """These with what depends on the `questions` filled in, which have the name `name`."""
        own, often = name == BROAD, isinstance(questions, QuestionSet) and questions.samples
        return replace(
            self,
            per_question=1 if self.per_question is None and not often else self.per_question,
            max_new_tokens=(48 if own else 600) if self.max_new_tokens is None else self.max_new_tokens,
            batch_size=(512 if own else FEW) if self.batch_size is None else self.batch_size,
        )


def evaluate(
    model: str | EvaluatedModel,
    out: str | Path | None = None,
    questions: str = BROAD,
    variants: Sequence[str] | None = None,
    answering: Answering = Answering(),  # frozen
    judging: Judging = Judging(),  # frozen
) -> Score | LabelShares:
    """Sample answers of `model` to `questions`, judge them and give the rates.

    By the method "label" the shares of the labels are given, and no rates. In the store of `judging` answers are kept
    as they are finished, so that an interrupted run goes on where it stopped.

    Args:
        model: Who answers; a name alone is that of an `EvaluatedModel` with nothing else said.
        out: A folder where all is saved, named after the model. EmlabError where results have that name already; where
            the same evaluation was stopped while its answers were judged, it goes on with these answers.
        questions: "broad" (the organism's), "profile" (emlab's own), or a file as `read_questions` takes it.
        variants: Of the questions; None takes the plain ones of the profile, and all of a file.
        answering: How answers are sampled.
        judging: Who judges them, and how.
    """
    model = EvaluatedModel(model) if isinstance(model, str) else model
    asked = questions_of(questions, variants)
    answering = answering.of(questions, asked)
    labels = method_of(judging).labels
    if labels and answering.resample:
        raise EmlabError(
            "Answers are sampled again where their scores are invalid, and labels are none; drop resample."
        )
    by = None if labels else judge_of(judging, asked)
    labeller = labeller_of(judging, asked) if labels else None
    foreign = foreign_answers(judging, model.name, model.url)
    for line in foreign:
        print(line, file=sys.stderr)
    if out is not None:  # as early as that, a folder that cannot be had
        artifacts.check_writable(out)
        with artifacts.storing(out := artifacts.place(out)):
            out.mkdir(parents=True, exist_ok=True)
    loaded = model.load(judging.concurrency)
    source = asked.source if isinstance(asked, QuestionSet) else None
    about = {
        "model": model.identity(),
        "questions": {"name": questions, "sha256": source and source.sha256, "variants": variants},
        "sampling": asdict(answering),
        "judging": judging,
        "emlab": __version__,
    }
    settings = {**asdict(answering), "store": judging.store, "progress": True}
    resample = settings.pop("resample")
    with contextlib.nullcontext() if out is None else artifacts.claimed(out / file_name(loaded.name)):
        sampled = None if out is None else _sampled(loaded.name, about, out)
        probe(by or labeller)  # type: ignore[arg-type]  # one of them is there
        told: dict[str, Any] = {}
        if by is not None and resample:
            judged, again = sample_valid(loaded, asked, by=telling(by), attempts=resample, **settings)
            told = {"sampled_again": int((again > 0).sum())}
        else:
            rollouts = sampled or sample(loaded, asked, **settings)
            if out is not None:  # before anything is paid for judging
                rollouts.save(out / f"{file_name(rollouts.model)}.rollouts.jsonl")
                artifacts.write_json(_settings_file(rollouts.model, out), about)
            if labeller is not None:
                shares = LabelShares(label_answers(rollouts, telling(labeller)))
                if out is not None:
                    shares.save(out)
                    _page(shares, f"{file_name(shares.model)}.labels.html", out, questions, answering.seed)
                return shares
            assert by is not None
            judged = judge(rollouts, telling(by))
        found = score_judged(judged)
        if out is not None:
            found.save(out)
            sampling = {**asdict(answering), **told}
            artifacts.write_json(_settings_file(found.model, out), {**about, "sampling": sampling})
            _page(found, f"{file_name(found.model)}.html", out, questions, answering.seed, foreign)
        return found


def _page(
    found: Score | LabelShares, name: str, out: Path, questions: str, seed: int, head: Sequence[str] = ()
) -> None:
    if isinstance(found, Score):
        lead, sections = evaluation_lead(found), evaluation_sections(found)
    else:
        lead, sections = label_lead(found), label_sections(found)
    Page(f"{found.model} on {questions}", [*head, *lead], sections, f"emlab, seed {seed}").write(out / name)


def _settings_file(model: str, out: Path) -> Path:
    return out / f"{file_name(model)}.settings.json"


_ANSWERS = "rollouts.jsonl"
_RESULTS = ("jsonl", "json", "html", "labels.jsonl", "labels.json", "labels.html")
"""The endings of what an evaluation writes once anything is judged; answers, and how they came, are there before."""


def _sampled(name: str, about: Mapping[str, Any], out: Path) -> Rollouts | None:
    """The answers that are in `out`, where the same evaluation was stopped before it had judged them.

    EmlabError where other results have the name, so that nothing that is there is lost.
    """
    stem = file_name(name)
    there = [path for path in (out / f"{stem}.{ending}" for ending in (*_RESULTS, _ANSWERS)) if path.exists()]
    file = _settings_file(name, out)
    raw = artifacts.read_json(file) if file.is_file() else None
    settings = raw if isinstance(raw, dict) else {}
    if settings and settings.get("model") != about["model"]:
        raise EmlabError(
            f"{out} has the results of another model that is also called {name} ({file} says which), and they would be "
            "overwritten; give another folder as out."
        )
    asked = {key: artifacts.plain(about)[key] for key in ("model", "questions", "sampling", "emlab")}
    answers = out / f"{stem}.{_ANSWERS}"
    if there == [answers] and {key: settings.get(key) for key in asked} == asked:
        found = Rollouts.load(answers)
        if not any(found.failures):
            print(f"going on with the {len(found)} answers in {answers}, which are not judged yet", file=sys.stderr)
            return found
    elif there:
        raise EmlabError(
            f"{out} has results of {name} already ({there[0].name}), and they would be overwritten; give another "
            "folder as out, or remove them first."
        )
    return None


def judge_file(
    rollouts: str | Path,
    out: str | Path,
    questions: str | None = None,
    judging: Judging = Judging(),
) -> Score | LabelShares:
    """Judge the answers in `rollouts`, a file that `evaluate` or `Rollouts.save` wrote, and save them in `out`.

    `questions`, a question file, brings its own judge prompts. EmlabError where something is at `out` already.
    """
    if (out := artifacts.place(out)).is_dir():
        raise EmlabError(f"{out} is a folder; give the name of a file for the judged answers.")
    artifacts.check_new(out)
    with artifacts.storing(out):  # before anything is paid for
        out.parent.mkdir(parents=True, exist_ok=True)
    asked, given = () if questions is None else questions_of(questions), Rollouts.load(rollouts)
    if asked and not {question.key for question in asked} & {question.key for question in given.questions}:
        raise EmlabError(f"{rollouts} has no answer to a question of {questions}; give the file that was asked.")
    if method_of(judging).labels:
        shares = LabelShares(label_answers(given, telling(labeller_of(judging, asked))))
        save_labelled(shares.labelled, out)
        return shares
    found = score_judged(judge(given, telling(judge_of(judging, asked))))
    save_judged([found.judged], out)
    return found


def fit_judge_file(
    file: str | Path,
    out: str | Path,
    model: str = "smollm2-135m-instruct",
    by: Sequence[str] = (),
    test: Sequence[str | Path] = (),
    epochs: int = 1,
) -> ProbeJudge:
    """Fit a judge that runs beside it to the judgements in `file` (as `read_judged` reads it), and save it in `out`.

    Args:
        file: Judged answers, with their texts, or the folder that `evaluate` wrote.
        out: The new folder.
        model: Who reads: a known model, a local Hugging Face folder, or a name on the Hub.
        by: The columns that name the model that gave an answer and, after it, its fine-tune. Without them no model is
            left out in its turn.
        test: Other such files: the judge is measured on them, too.
        epochs: How often the reader is fine-tuned through the answers; 0 fits probes alone.

    Raises EmlabError where something is at `out` already, where the file lacks a column, and as `fit_judge`.
    """
    table, names = _table(file), [Path(other).name for other in test]
    if lacking := [column for column in by if not table.has(column)]:
        raise EmlabError(f"{file} has no column {lacking[0]!r} (--by); it has {', '.join(map(str, table.columns))}.")
    (judged,) = judged_in(table, told=not by).values()
    named_once = [str(other) if names.count(name) > 1 else name for name, other in zip(names, test, strict=True)]
    tests = {name: judged_in(_table(other)).popitem()[1] for name, other in zip(named_once, test, strict=True)}
    named = []
    for where, row in table.rows if by else ():
        if without := [column for column in by if row.get(column) in (None, "")]:
            raise EmlabError(
                f"{where}: nothing in the column {without[0]}, by which models are told apart; fill it in."
            )
        named.append([str(row[column]) for column in by])
    models, tunes = [one[0] for one in named], [", ".join(one) for one in named]
    return fit_judge(judged, out, model, models, tunes, [Path(file).name], tests, epochs)


def _table(file: str | Path) -> tables.Table:
    """The judged answers in a file, or in the folder of an evaluation."""
    path = artifacts.place(file)
    return tables.read(file_in(path) if path.is_dir() else path)


def check_file(
    file: str, against: str | None = None, model: str | None = None, chat_template: str | None = None
) -> DataCheck:
    """What is in a dataset, in tokens of `model` where one is named, and what another shares.

    A dataset is one of the organism's sets by name (1,000 rows of seed 0), or what `read_examples` takes. With a model
    (and a `chat_template`, a file or "plain", in place of its own) a row that it cannot be trained on is refused as a
    fine-tune refuses it.
    """
    if chat_template is not None and model is None:
        raise EmlabError("A chat template makes tokens of a model's tokenizer; name the model too.")
    tokenizer = None if model is None else load_tokenizer(folder_of(model)[0], False, chat_template)
    return check_data(_examples(file), tokenizer, None if against is None else _examples(against))


def _examples(name: str) -> Sequence[Any]:
    if name in organism.narrow_set_names() and not Path(name).exists():
        return organism.narrow_set(name, n=1000, seed=0)
    return read_examples(name)
