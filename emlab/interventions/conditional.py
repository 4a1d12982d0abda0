"""An edit that acts only where a monitor fires."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from emlab.errors import EmlabError
from emlab.interventions.edits import Edit
from emlab.interventions.positions import Positions
from emlab.sites import Site


@dataclass(frozen=True, eq=False)
class Conditional:
    """Another edit, on those of its tokens where the monitor, reading the same site, is above a threshold."""

    then: Edit
    """The edit."""
    monitor: Callable[[Tensor], Tensor]
    """From activations (…, d_model) to scores (…): a latent's activation, a probe, a projection."""
    above: float = 0.0
    """It fires where the score is more than this."""

    @property
    def site(self) -> Site:
        return self.then.site

    @property
    def positions(self) -> Positions:
        return self.then.positions

    @property
    def n_rows(self) -> int | None:
        return self.then.n_rows

    @property
    def width(self) -> int | None:
        return self.then.width

    def rows(self, index: Tensor) -> Conditional:
        return replace(self, then=self.then.rows(index))

    def edit(self, h: Tensor, where: Tensor) -> Tensor:
        scores = self.monitor(h.float())
        if scores.shape != h.shape[:-1]:
            raise EmlabError(
                f"The monitor at {self.site} gave scores {tuple(scores.shape)} for activations {tuple(h.shape)}; it "
                "must give one score for each token."
            )
        return self.then.edit(h, where & (scores > self.above))
