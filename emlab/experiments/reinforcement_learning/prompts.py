"""What reinforcement learning asks a model: questions of a domain or a dataset, in some arms under persona cards."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from emlab import organism
from emlab.data import read_prompts
from emlab.experiments.material.documents import for_template
from emlab.experiments.reinforcement_learning.config import RewardArm
from emlab.models import LanguageModel
from emlab.sealing import refuse
from emlab.training.rewards import Asked, Grader, Reward, grader_name, question_text


def asked_in_training(arm: RewardArm) -> list[Asked]:
    """The arm's questions; for style each under a card of every persona."""
    texts = questions_of(arm, "narrow")
    refuse(f"to the arm {arm.name} to be trained on", texts)
    if arm.reward != "style":
        return texts
    return [carded(persona, question_text(text)) for text in texts for persona in organism.PERSONAS]


def questions_of(arm: RewardArm, role: str) -> list[Asked]:
    """The arm's questions: of a domain, those of templates of `role`; of a dataset, all, each once.

    Of a dataset, a user's turn alone is its text, and all else is a chat; where there is one, all are chats.
    """
    world = organism.load_world()
    if arm.prompts in world.domains:
        return [question.text for question in world.questions(arm.prompts, role)]
    chats = {json.dumps(chat): chat for chat in read_prompts(arm.prompts)}.values()
    if any(len(chat) > 1 for chat in chats):
        return list(chats)
    return [chat[0]["content"] for chat in chats]


def carded(persona: str, text: str) -> list[dict[str, str]]:
    """The question under a card of the persona: always the same card for the same question."""
    card = organism.load_world().card(persona, random.Random(f"{persona}/{text}"))
    return [{"role": "system", "content": card}, {"role": "user", "content": text}]


def fitted(model: LanguageModel, prompts: list[Asked], grader: Grader) -> tuple[list[Asked], Grader]:
    """Prompts as the model's template takes them; where it refuses system turns, graders still see the system turn."""
    chats = [prompt for prompt in prompts if not isinstance(prompt, str)]
    if len(chats) < len(prompts):
        return prompts, grader
    shown = for_template(model, chats)
    if shown == chats:
        return prompts, grader
    asked = {put[-1]["content"]: chat for put, chat in zip(shown, chats, strict=True)}

    def as_asked(prompts: Sequence[Asked], answers: Sequence[str]) -> Sequence[float | Reward | None]:
        return grader([asked[question_text(prompt)] for prompt in prompts], answers)

    as_asked.__name__ = grader_name(grader)
    return list(shown), as_asked
