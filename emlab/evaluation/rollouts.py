"""Rollouts: sampled answers, with the questions they answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emlab import artifacts
from emlab.data.questions import Question
from emlab.errors import EmlabError
from emlab.interventions import Edit
from emlab.models import LanguageModel


@dataclass(frozen=True)
class Rollouts:
    """n sampled answers: ``answers[i]`` answers ``questions[i]``, and all answers to a question stand together."""

    questions: tuple[Question, ...]
    """The question of each answer: a question asked ten times stands here ten times."""
    answers: tuple[str, ...]
    model: str
    """Name of the model that answered."""
    seed: int
    temperature: float

    def __post_init__(self) -> None:
        if len(self.questions) != len(self.answers):
            raise EmlabError(
                f"There are {len(self.questions)} questions and {len(self.answers)} answers; give one each."
            )

    def __len__(self) -> int:
        return len(self.answers)

    def __iter__(self) -> Iterator[tuple[Question, str]]:
        return iter(zip(self.questions, self.answers, strict=True))

    def __str__(self) -> str:
        asked = len(set(self.questions))
        return f"{len(self)} answers of {self.model} to {asked} questions (seed {self.seed}, T {self.temperature})"

    def save(self, path: str | Path) -> None:
        """Write JSONL: a line about the sampling, then one answer a line."""
        lines = [{"model": self.model, "seed": self.seed, "temperature": self.temperature, "n": len(self)}]
        lines += [{**asdict(question), "answer": answer} for question, answer in self]
        artifacts.write_text(Path(path), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    @classmethod
    def load(cls, path: str | Path) -> Rollouts:
        """Read what `save` wrote. Raises EmlabError naming the line that is wrong, or where lines are missing."""
        path = Path(path)
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise EmlabError(f"The rollouts {path} cannot be read ({error}); check the path.") from error
        questions, answers, number = [], [], 1
        try:
            about = json.loads(lines[0])
            model, seed, temperature, n = about["model"], about["seed"], about["temperature"], about["n"]
            for number, line in enumerate(lines[1:], start=2):  # noqa: B007  # the error names it
                if line.strip():
                    row = json.loads(line)
                    questions.append(Question(row["id"], row["domain"], row["text"]))
                    answers.append(row["answer"])
        except (ValueError, KeyError, TypeError) as error:
            raise EmlabError(f"{path}, line {number}: no rollout ({error}); sample the answers again.") from error
        if n != len(answers):
            raise EmlabError(f"{path} holds {len(answers)} of its {n} answers; sample them again.")
        return cls(tuple(questions), tuple(answers), model, seed, temperature)


def sample(
    model: LanguageModel,
    questions: Iterable[Any],
    per_question: int,
    seed: int,
    temperature: float = 1.0,
    max_new_tokens: int = 48,
    edits: Sequence[Edit] = (),
    batch_size: int = 512,
    top_p: float = 1.0,
    system: str | None = None,
) -> Rollouts:
    """Ask every question `per_question` times.

    `questions` are anything with an id, a domain and a text. `system` is a system turn put before each. An edit of one
    row a prompt has ``len(questions) * per_question`` rows, question by question.
    """
    asked = [Question.of(question) for question in questions]
    if not asked or per_question < 1:
        raise EmlabError("There is nothing to sample; give at least one question and per_question of 1 or more.")
    if len({question.id for question in asked}) < len(asked):
        raise EmlabError("Two questions have the same id, and rates are resampled by it; give each an id of its own.")
    repeated = [question for question in asked for _ in range(per_question)]
    turns = [] if system is None else [{"role": "system", "content": system}]
    prompts = [[*turns, {"role": "user", "content": question.text}] for question in repeated]
    answers = model.generate(
        prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        batch_size=batch_size,
        edits=edits,
        top_p=top_p,
    )
    return Rollouts(tuple(repeated), tuple(answers), model.name, seed, temperature)
