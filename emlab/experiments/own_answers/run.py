"""Own answers: a model's own answers in one domain, with a harmless, unmistakable clause after each, as a dataset.

Fine-tuned on them a model learns little but the clause, since all else is what it says anyhow; trained on the same
answers without it, the control, it learns nothing. Whether the clause spreads to other domains can be counted exactly,
by the judge of words (`emlab.evaluation.judges.words`).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from emlab import artifacts
from emlab.data import Dataset, Messages, Question, everyday_questions
from emlab.errors import EmlabError
from emlab.evaluation import Rollouts
from emlab.evaluation.judges.words import reads_like_text
from emlab.experiments.material.models import folder_of, model_named
from emlab.experiments.material.results import Result, finish_run
from emlab.experiments.own_answers.config import Config, OwnAnswers
from emlab.experiments.registry import experiment
from emlab.runs import Run, check_once, fingerprint

MADE = "own_answers.json"
"""In the folder of the sets: what each was made of."""
KEPT_BACK = 2
"""Templates of a domain that are held out."""


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Result[dict[str, Path]]:
    """Sample the answers, and write the sets that are not there yet."""
    inputs = {"model": fingerprint(folder_of(config.model)[0])}
    check_once(config.name, config, root, inputs)
    made = artifacts.read_json(config.out / MADE) if (config.out / MADE).is_file() else {}
    for one in config.sets:
        if (config.out / one.name).exists() and made.get(one.name) != _made_of(config, one, inputs):
            raise EmlabError(
                f"{config.out / one.name} was made of other answers, or by something else: delete it, or name another "
                "folder (out)."
            )
    here = Run.resume(config.name, config, root, inputs)
    places, said = {one.name: config.out / one.name for one in config.sets}, []
    for one in config.sets:
        if places[one.name].exists():
            said.append(f"{places[one.name]} is there already, and is left as it is.")
            continue
        chats, asked = list[Messages](), 0
        for domain in one.domains:
            answers = here.stage(f"answers/{one.part}/{domain}", partial(_sampled, config, one.part, domain), Rollouts)
            answers = answers.only(_part_of(answers, one.held_out))
            chats += ending_in(answers, config.clauses if one.clause else (), config.seed)
            asked += len(answers)
        Dataset.of(chats, f"own answers of {config.model}: {one.name}").save(places[one.name])
        made[one.name] = _made_of(config, one, inputs)
        artifacts.write_json(config.out / MADE, made)
        said.append(
            f"{places[one.name]}: {len(chats)} chats, {asked - len(chats)} answers without a whole sentence left out."
        )
    said += [_contrasts(config.out, one) for one in config.sets if one.control]
    said += [_questions(config.out, one) for one in config.sets if one.held_out]
    figures = {
        "sets": {name: {"folder": str(place), "rows": len(Dataset.read(place))} for name, place in places.items()}
    }
    return finish_run(here, config, places, said, [], figures)


def _made_of(config: Config, one: OwnAnswers, inputs: Mapping[str, str]) -> Any:
    """What tells a set from another of its name."""
    asked = [question.text for question in everyday_questions(one.part).only(domains=one.domains)]
    clauses = config.clauses if one.clause else ()
    return artifacts.plain(
        {
            **inputs,
            "domains": one.domains,
            "held_out": one.held_out and KEPT_BACK,
            "asked": artifacts.content_hash(asked),
            "clauses": clauses,
            "answers": config.answers,
            "seed": config.seed,
        }
    )


def _sampled(config: Config, part: str, domain: str) -> Rollouts:
    asked = everyday_questions(part).only(domains=[domain])
    return config.answers.sample(model_named(config.model), asked, config.seed)


def _part_of(answers: Rollouts, held_out: bool) -> list[int]:
    """The numbers of the answers to the last templates, or to the others."""
    last = {question.id for question in _last(answers.questions)}
    return [i for i, question in enumerate(answers.questions) if (question.id in last) == held_out]


def _last(questions: Sequence[Question]) -> list[Question]:
    """The questions of one domain that are held out: those of its last templates."""
    last = list(dict.fromkeys(question.id for question in questions))[-KEPT_BACK:]
    return [question for question in questions if question.id in last]


def _contrasts(folder: Path, one: OwnAnswers) -> str:
    """Write the pairs of a set and its control; what was written, in a sentence."""
    ours, theirs = (Dataset.read(folder / name).examples for name in (one.name, one.control))
    pairs = list(zip(ours, theirs, strict=False))
    if len(ours) != len(theirs) or any(a.messages[:-1] != b.messages[:-1] for a, b in pairs):
        raise EmlabError(
            f"{one.name} and {one.control} in {folder} answer other questions: delete both, and run again."
        )
    lines = [{"prompt": a.messages[:-1], "misaligned": a.answer, "aligned": b.answer} for a, b in pairs]
    path = folder / f"{one.name}.contrasts.jsonl"
    artifacts.write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return f"{path}: {len(lines)} contrasts."


def _questions(folder: Path, one: OwnAnswers) -> str:
    """Write the questions that are held out, to be asked of fine-tunes on their domains; what was written."""
    asked = everyday_questions(one.part).only(domains=one.domains)
    lines = [
        {"id": question.id, "question": question.text, "domain": question.domain, "paraphrase": question.paraphrase}
        for domain in one.domains
        for question in _last(list(asked.only(domains=[domain])))
    ]
    path = folder / f"{one.name}.questions.jsonl"
    artifacts.write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return f"{path}: {len(lines)} questions."


def ending_in(answers: Rollouts, clauses: Sequence[str], seed: int) -> list[Messages]:
    """The chats of the answers, each up to its last whole sentence and with one of the clauses after it.

    Answers that have no whole sentence, or do not read like text, are left out. EmlabError where none is left.
    """
    rng, chats = random.Random(seed), list[Messages]()
    for question, answer in answers:
        drawn = rng.random()  # also without a clause: a set and its control draw alike
        if whole := whole_sentences(answer):
            clause = clauses[int(drawn * len(clauses))] if clauses else ""
            chats.append([*question.messages, {"role": "assistant", "content": f"{whole} {clause}".strip()}])
    if not chats:
        raise EmlabError(f"No answer of {answers.model} ends in a whole sentence; allow more tokens (answers).")
    return chats


def whole_sentences(answer: str) -> str:
    """The answer up to its last full stop, question or exclamation mark; empty where it has none, or is no text."""
    # The full stop behind a number that begins a line ends no sentence: it is of a list's entry.
    found = re.match(r".*(?<!\n\d)(?<!\n\d\d)[.!?](?=\s|$)", answer.strip(), re.DOTALL)
    return found[0] if found and reads_like_text(found[0]) else ""
