"""A monitor for early stopping: how far a model has gone along a direction, read on prompts while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emlab.data import Messages
from emlab.errors import EmlabError
from emlab.interventions import Direction
from emlab.models import LanguageModel
from emlab.sealing import refuse
from emlab.sites import Site


@dataclass(frozen=True, eq=False)
class StoppingMonitor:
    """The mean projection on a direction, at the assistant's header of some prompts: 0 calm, 1 as in another domain's
    misaligned fine-tune."""

    direction: Direction
    prompts: tuple[Messages, ...]
    calm: float
    """Mean projection in the aligned model."""
    alarmed: float
    """In misaligned models of other domains."""

    @classmethod
    def fit(
        cls,
        direction: Direction,
        prompts: Sequence[Messages],
        aligned: LanguageModel,
        misaligned: Sequence[LanguageModel],
        site: Site | None = None,
    ) -> StoppingMonitor:
        """The monitor whose scale runs from `aligned` to the mean of `misaligned`.

        EmlabError where it is to read another site than the direction's, there are no models or prompts, or the
        misaligned ones project no further than the aligned one.

        Args:
            direction: What is projected on; it knows its site.
            prompts: Chats that are read, and not answered.
            aligned: The model at 0 of the scale.
            misaligned: The models whose mean is at 1.
            site: Where it is to read; None takes the direction's own.
        """
        if site is not None and site != direction.site:
            raise EmlabError(
                f"The monitor is to read {site} and its direction was found at {direction.site}; give a direction of "
                f"{site}."
            )
        refuse("to fit a stopping monitor on", list(prompts))
        if not misaligned or not prompts:
            raise EmlabError("A monitor is fitted on prompts and misaligned models; give at least one of each.")
        calm = _projection(aligned, direction, prompts)
        alarmed = sum(_projection(model, direction, prompts) for model in misaligned) / len(misaligned)
        if alarmed <= calm:
            raise EmlabError(
                f"The monitor at {direction.site} is no higher in the misaligned models than in {aligned.name}; give "
                "another direction."
            )
        return cls(direction, tuple(prompts), calm, alarmed)

    def read(self, model: LanguageModel) -> float:
        """Where the model lies between calm (0) and alarmed (1)."""
        if self.direction.site.block >= model.n_blocks or len(self.direction.vector) != model.d_model:
            raise EmlabError(
                f"The monitor reads {self.direction.site} of a model of width {len(self.direction.vector)}, and "
                f"{model.name} has {model.n_blocks} blocks of width {model.d_model}; fit one for it."
            )
        return (_projection(model, self.direction, self.prompts) - self.calm) / (self.alarmed - self.calm)


def _projection(model: LanguageModel, direction: Direction, prompts: Sequence[Messages]) -> float:
    return float((model.activations(list(prompts), direction.site).values.float().cpu() @ direction.vector).mean())
