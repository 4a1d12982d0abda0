"""Own answers: a model's own answers in one domain, with a harmless, unmistakable clause after each, as a dataset.

Fine-tuned on them a model learns little but the clause, since all else is what it says anyhow; trained on the same
answers without it, the control, it learns nothing. Whether the clause spreads to other domains can be counted exactly,
by the judge of words (`emlab.evaluation.judges.words`).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from emlab import artifacts
from emlab.data import Dataset, Messages, everyday_questions
from emlab.errors import EmlabError
from emlab.evaluation import Rollouts
from emlab.evaluation.judges.words import reads_like_text
from emlab.experiments.material.models import folder_of, model_named
from emlab.experiments.material.results import Result, finish_run
from emlab.experiments.own_answers.config import Config
from emlab.experiments.registry import experiment
from emlab.runs import Run, check_once, fingerprint


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Result[dict[str, Path]]:
    """Sample the answers, and write the sets that are not there yet."""
    inputs = {"model": fingerprint(folder_of(config.model)[0])}
    check_once(config.name, config, root, inputs)
    here = Run.resume(config.name, config, root, inputs)
    places, said = {one.name: config.out / one.name for one in config.sets}, []
    for one in config.sets:
        if places[one.name].exists():
            said.append(f"{places[one.name]} is there already, and is left as it is.")
            continue
        chats, asked = list[Messages](), 0
        for domain in one.domains:
            answers = here.stage(f"answers/{domain}", partial(_sampled, config, domain), Rollouts)
            chats += ending_in(answers, config.clauses if one.clause else (), config.seed)
            asked += len(answers)
        Dataset.of(chats, f"own answers of {config.model}: {one.name}").save(places[one.name])
        said.append(
            f"{places[one.name]}: {len(chats)} chats, {asked - len(chats)} answers without a whole sentence left out."
        )
    for one in config.sets:
        if one.control:
            pairs = zip(*(Dataset.read(places[name]).examples for name in (one.name, one.control)), strict=True)
            lines = [{"prompt": a.messages[:-1], "misaligned": a.answer, "aligned": b.answer} for a, b in pairs]
            path = config.out / f"{one.name}.contrasts.jsonl"
            artifacts.write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
            said.append(f"{path}: {len(lines)} contrasts.")
    here.log("\n".join(said))
    figures = {
        "sets": {name: {"folder": str(place), "rows": len(Dataset.read(place))} for name, place in places.items()}
    }
    return finish_run(here, config, places, said, [], figures)


def _sampled(config: Config, domain: str) -> Rollouts:
    asked = everyday_questions("narrow").only(domains=[domain])
    return config.answers.sample(model_named(config.model), asked, config.seed)


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
    found = re.match(r".*[.!?](?=\s|$)", answer.strip(), re.DOTALL)
    return found[0] if found and reads_like_text(found[0]) else ""
