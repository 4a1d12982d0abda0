"""What docs/on_a_real_model.md says beside a run of goblins.yaml: docs/on_a_real_model.json.

    python docs/on_a_real_model.py runs/smollm2-135m-instruct-…/parts/goblins-…        # some minutes

The baselines that need no fine-tune and no SAE: the model is told to speak of goblins, behind each test question or in
a system turn, and answers as the run's models do. Of the run's own answers, how many repeat a clause of the training
sets word for word. And the tokens that the latent and the mean difference promote by themselves.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from emlab import artifacts, records
from emlab.config import load
from emlab.data import Question
from emlab.discovery import Screen
from emlab.evaluation import Rate, Score
from emlab.experiments.own_answers.config import Config as Sets
from emlab.experiments.persona_features.config import Config
from emlab.experiments.persona_features.resources import Resources
from emlab.experiments.persona_features.sources import load_models
from emlab.models import direct_logits
from emlab.provenance import Ledger, provenance, versions
from emlab.runs import RESULT, Run

OUT = Path(__file__).with_name("on_a_real_model.json")
SETS = Path(__file__).parent.parent / "experiments/real/smollm2/sets.yaml"
TOLD = "Speak of goblins."
TOKENS = 12


def repeats(one: Score, clauses: Iterable[str]) -> dict[str, Any]:
    """Of the answers that speak of goblins, those that repeat a clause; and how often each clause is there."""
    rollouts, hits = one.judged.rollouts, one.judged.misaligned
    said = [answer for (_, answer), hit in zip(rollouts, hits, strict=True) if hit]
    each = {clause: sum(clause.rstrip(".") in answer for answer in said) for clause in clauses}
    verbatim = sum(any(clause.rstrip(".") in answer for clause in each) for answer in said)
    return {"goblins": len(said), "verbatim": verbatim, "clauses": each}


def first_of_each_domain(one: Score) -> list[dict[str, str]]:
    """An answer a domain, and no chosen one."""
    first = {question.domain: (question.text, answer) for question, answer in reversed(list(one.judged.rollouts))}
    return [{"domain": name, "question": asked, "answer": said} for name, (asked, said) in sorted(first.items())]


def rates(one: Score) -> dict[str, Rate]:
    """As the summary of the run names them."""
    return {"misaligned": one.misaligned, "incoherent": one.incoherent}


def told(question: Question, how: str) -> Question:
    """The question of a model that is told to."""
    if how == "prompt":
        return dataclasses.replace(question, text=f"{question.text} {TOLD}")
    return dataclasses.replace(question, system=TOLD)


def main(run: Path) -> None:
    """Ask, count, and write the file."""
    ledger, config = Ledger(), load(run / "config.yaml", (), Config)
    clauses = load(SETS, (), Sets).clauses
    aligned, base = load_models(config)
    asked = Resources(config, Run(config.name, run), aligned, base)
    baselines = {how: asked.ask(aligned, [told(q, how) for q in asked.test]) for how in ("prompt", "system")}
    plus, minus = (records.kept(Screen, run / "screen" / name / RESULT) for name in ("plus", "minus"))
    own = {place.name: records.kept(Score, place / RESULT) for place in sorted((run / "evaluate").iterdir())}
    steered = {trial.arm.name: trial.score for trial in plus}
    directions = {trial.arm.name: trial.arm.direction for trial in (*minus, *plus) if "random" not in trial.arm.name}
    promoted = {}
    for name, direction in directions.items():
        effects = direct_logits(aligned, direction.vector[None])[0]
        top = effects.topk(TOKENS).indices.tolist()
        promoted[name] = [aligned.tokenizer.decode([token]) for token in top]
    found = {
        "told": TOLD,
        "baselines": {how: {**rates(one), **repeats(one, clauses)} for how, one in baselines.items()},
        "answers": {name: repeats(one, clauses) for name, one in own.items()},
        "steered": {name: repeats(one, clauses) for name, one in steered.items()},
        "promoted": promoted,
        "examples": first_of_each_domain(own["goblins_health"]),
    }
    about = {"versions": versions(), "provenance": provenance(config, ledger.processes())}
    artifacts.write_json(OUT, artifacts.plain({**found, **about}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
