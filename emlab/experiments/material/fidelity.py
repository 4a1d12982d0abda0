"""Does the SAE describe the models in which a step is to read or push its latents? Asked before, and said where not.

Latents of an SAE that does not reconstruct a model are ranked like any others, and mean nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from emlab import organism
from emlab.experiments.material.documents import documents_for, for_template
from emlab.saes import Bounds, Faithful, SaeCheck, check_model
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.models import LanguageModel, Prompt

READ = 32
"""Documents or prompts that are read for it; `emlab sae check` reads more, and gives intervals."""


def _on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def ask_fidelity(
    sae: SAE,
    name: object,
    site: Site,
    models: Sequence[LanguageModel],
    prompts: Sequence[Prompt],
    answers: Sequence[str] | None = None,
    say: Callable[[str], object] = _on_stderr,
) -> tuple[Faithful, ...]:
    """The verdicts that fail of the SAE called `name` at `site` on `models`, the base first; `say` is given a line.

    Models of the organism read its documents, as `emlab sae check` has them do. Others read some of the step's own
    `prompts`, with their answers where the step reads these; there headers are not judged, since what differs between
    prompts may hardly reach them.
    """
    found, own = [], organism.world_read_by(models[0].tokenizer) is not None
    for model in models:
        if own:
            chats = documents_for(model, READ, 2)  # a seed that no SAE that ships was trained on
            read: Sequence[Prompt] = for_template(model, [chat.messages for chat in chats])
        else:
            many = min(len(prompts), READ)
            chosen = [i * len(prompts) // many for i in range(many)]
            read = [prompts[i] if answers is None else _answered(prompts[i], answers[i]) for i in chosen]
        found.append(check_model(sae.to(model.device), model, read, resamples=2, site=site))
    verdicts = SaeCheck(str(name), site, tuple(found), Bounds()).verdicts
    failing = tuple(v for v in verdicts if not v.holds and (own or v.tokens != "header"))
    if failing:
        say(
            f"CAUTION: the SAE {name} does not describe every model here, so what its latents tell means little: "
            f"{' '.join(verdict.said for verdict in failing)} See emlab sae check."
        )
    return failing


def _answered(prompt: Prompt, answer: str) -> Prompt:
    """The prompt and its answer as one chat; a prompt of token ids stays without."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    if len(prompt) and isinstance(prompt[0], dict):
        return [*prompt, {"role": "assistant", "content": answer}]  # type: ignore[list-item,misc]
    return prompt
