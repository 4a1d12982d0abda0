"""Questions by name, divided."""

from __future__ import annotations

from collections.abc import Sequence

from emlab import organism
from emlab.data import Question, QuestionSet
from emlab.discovery import Split, split_by_id, split_by_template
from emlab.evaluation.protocol import questions_of
from emlab.experiments.material.sets import dataset_place


def halves_of(
    name: str, seed: int, sealed: bool = False, variants: Sequence[str] = ()
) -> tuple[Split, list[Question] | QuestionSet]:
    """Questions to choose by and questions to report on, and the set that both are from.

    Args:
        name: Of the set.
        seed: Of the division of a question set.
        sealed: Whether to report on the organism's sealed questions; what chooses stays the same.
        variants: Of a set that has several: those that are asked; none named: as `questions_of` takes them.
    """
    whole = questions_of(dataset_place(name), variants or None)
    if isinstance(whole, QuestionSet):
        return split_by_id(whole, seed), whole
    world = organism.world_of(name)[0]
    halves = split_by_template(organism.broad_questions(world=world))
    if not sealed:
        return halves, whole
    kept = tuple(map(Question.of, organism.sealed_questions(world=world)))
    return Split(halves.discovery, kept), [*whole, *kept]
