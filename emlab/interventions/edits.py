"""Edits: pure functions on activations, with the site and the positions where they act.

An edit knows no model. A backend in `emlab.models.backends` hands it the activation ``h`` (batch, position, d_model)
of its site and the mask ``where`` (batch, position) of its positions, and puts back what it returns. Where the mask
is False, what it returns is ``h`` bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.interventions.direction import Direction
from emlab.interventions.positions import Positions, check_positions
from emlab.sites import Site


@runtime_checkable
class Edit(Protocol):
    """What every edit offers."""

    @property
    def site(self) -> Site:
        """Where it acts."""

    @property
    def positions(self) -> Positions:
        """On which tokens it acts."""

    @property
    def n_rows(self) -> int | None:
        """How many rows of a batch it is made for, each row differently; None where it is the same for every row."""

    @property
    def width(self) -> int | None:
        """How wide the site must be; None where it takes any."""

    def edit(self, h: Tensor, where: Tensor) -> Tensor:
        """The edited ``h``, same shape and dtype, untouched where `where` is False."""

    def rows(self, index: Tensor) -> Edit:
        """The edit for these rows of the batch: `index` is int64 (n,)."""


class _Rows:
    """An edit some of whose fields may have a row for every row of a batch; a mask of positions always has."""

    site: Site
    positions: Positions

    def _by_row(self) -> dict[str, Tensor]:
        """The fields that differ from row to row, by name."""
        return {"positions": self.positions} if isinstance(self.positions, Tensor) else {}

    @property
    def n_rows(self) -> int | None:
        return next((len(value) for value in self._by_row().values()), None)

    def rows(self, index: Tensor) -> Self:
        picked = {name: value[index.to(value.device)] for name, value in self._by_row().items()}
        return replace(self, **picked) if picked else self  # type: ignore[type-var]

    def _check_rows(self) -> None:
        object.__setattr__(self, "site", Site.parse(self.site))  # a name does as well
        check_positions(self.positions)
        sizes = {name: len(value) for name, value in self._by_row().items()}
        if len(set(sizes.values())) > 1:
            given = " and ".join(f"{size} rows of {name}" for name, size in sizes.items())
            raise EmlabError(f"The {type(self).__name__} at {self.site} got {given}; match them.")

    def _on(self, name: str, device: torch.device) -> Tensor:
        """A tensor of the edit on `device`, moved there once and not with every token."""
        value: Tensor = getattr(self, name)
        if value.device != device:
            with torch.inference_mode(False):  # what is kept must do for a pass with gradients too
                value = value.to(device)
            object.__setattr__(self, name, value)
        return value


@dataclass(frozen=True, eq=False)
class Steer(_Rows):
    """Add ``strength * scale * direction``; with a row of each for every row of the batch, every row its own."""

    site: Site
    """Where it acts; here and in the other edits its name, such as "resid_post.1", does as well."""
    direction: Direction | Tensor
    """A direction, or a tensor (d_model,) or (batch, d_model) whose rows are made unit."""
    strength: float | Tensor = 1.0
    """In multiples of `scale`; negative steers away; a tensor (batch,) gives every row its own."""
    scale: float = 1.0
    """The unit of strength: the site's median residual norm (`LanguageModel.residual_norm`), a direction's own natural
    norm, or 1, by which the strength is absolute: the length of what is added."""
    positions: Positions = "sentence"
    _push: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        vector = self.direction.vector if isinstance(self.direction, Direction) else self.direction.detach().float()
        if vector.ndim not in (1, 2):
            raise EmlabError(f"A steering direction must be (d_model,) or (batch, d_model), not {tuple(vector.shape)}.")
        lengths = vector.norm(dim=-1, keepdim=True)
        if not bool(((lengths > 0) & lengths.isfinite()).all()):
            raise EmlabError(f"A steering direction at {self.site} has no length; steer with strength 0 for no edit.")
        strength = torch.as_tensor(self.strength, dtype=torch.float32, device=vector.device)
        if not bool(strength.isfinite().all()) or not math.isfinite(self.scale):
            raise EmlabError(f"Steering at {self.site} got a strength or scale that is not finite; give a number.")
        if strength.ndim > 1 or (strength.ndim == 1 and vector.ndim == 2 and len(strength) != len(vector)):
            raise EmlabError(
                f"Steering at {self.site} got strengths {tuple(strength.shape)} for directions {tuple(vector.shape)}; "
                "give one strength, or one for every row."
            )
        push = (strength * self.scale).unsqueeze(-1) * (vector / lengths)
        if not bool(push.isfinite().all()):
            raise EmlabError(f"Steering at {self.site} pushes by what is not finite in float32; steer less.")
        object.__setattr__(self, "_push", push.unsqueeze(-2) if push.ndim == 2 else push)
        self._check_rows()

    def _by_row(self) -> dict[str, Tensor]:
        own = {"direction": (self.direction, 2), "strength": (self.strength, 1), "positions": (self.positions, 2)}
        return {name: value for name, (value, ndim) in own.items() if isinstance(value, Tensor) and value.ndim == ndim}

    @property
    def width(self) -> int:
        return self._push.shape[-1]

    def push(self, device: torch.device) -> Tensor:
        """What is added: (d_model,), or (batch, 1, d_model) where every row has its own."""
        return self._on("_push", device)

    def edit(self, h: Tensor, where: Tensor) -> Tensor:
        push = self.push(h.device)
        _check(self.site, h, push)
        return torch.where(where.unsqueeze(-1), (h.float() + push).to(h.dtype), h)


@dataclass(frozen=True, eq=False)
class Ablate(_Rows):
    """Project out the span of some directions: what is left has no component along any of them."""

    site: Site
    directions: Direction | Sequence[Direction] | Tensor
    """One or more directions, or a tensor (d_model,) or (n, d_model). They need not be orthogonal. A tensor
    (batch, n, d_model) gives every row of the batch its own; rows of fewer are filled up with zeros."""
    positions: Positions = "sentence"
    _basis: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        given = self.directions
        if isinstance(given, Direction):
            vectors = given.vector[None]
        elif isinstance(given, Tensor):
            vectors = given.detach().float().cpu()
            vectors = vectors[None] if vectors.ndim == 1 else vectors
        elif given:
            vectors = torch.stack([d.vector for d in given])
        else:
            raise EmlabError(f"The ablation at {self.site} names no direction; give at least one.")
        if vectors.ndim > 3 or 0 in vectors.shape:
            raise EmlabError(
                f"The ablation at {self.site} got directions {tuple(vectors.shape)}; give (n, d_model), or "
                "(batch, n, d_model) for each row its own."
            )
        lengths = vectors.norm(dim=-1)
        if not bool(lengths.isfinite().all()) or (vectors.ndim == 2 and not bool((lengths > 0).all())):
            raise EmlabError(f"A direction to ablate at {self.site} has no length; leave it out.")
        # The right singular vectors of unit rows span the same space and are orthonormal, dependent rows or not.
        vectors = torch.nn.functional.normalize(vectors.double(), dim=-1)
        _, sizes, basis = torch.linalg.svd(vectors, full_matrices=False)
        spans = sizes > 1e-6
        basis = basis[spans] if vectors.ndim == 2 else basis * spans.unsqueeze(-1)
        object.__setattr__(self, "_basis", basis.float())
        self._check_rows()

    def _by_row(self) -> dict[str, Tensor]:
        given = self.directions
        own = {"directions": given} if isinstance(given, Tensor) and given.ndim == 3 else {}
        return {**own, **super()._by_row()}

    @property
    def width(self) -> int:
        return self._basis.shape[-1]

    def edit(self, h: Tensor, where: Tensor) -> Tensor:
        basis = self._on("_basis", h.device)
        _check(self.site, h, basis)
        wide = h.float()
        return torch.where(where.unsqueeze(-1), (wide - (wide @ basis.mT) @ basis).to(h.dtype), h)


@dataclass(frozen=True, eq=False)
class Clamp(_Rows):
    """Set latents to given activations and leave all else, the SAE's reconstruction error included, as it is.

    What is added is ``(values - encode(h)) @ writes``: the stream is never rebuilt from latents, so neither the error
    nor what another edit has put there before is lost. `emlab.interventions.ablate_encoded` and `clamp_encoded` make
    it of what one mostly has.
    """

    site: Site
    encode: Callable[[Tensor], Tensor]
    """From activations (…, d_model) to those of n latents (…, n)."""
    writes: Tensor
    """(n, d_model): what one unit of each latent's activation adds to the stream. It is not made unit."""
    values: Tensor
    """(n,): the activations to set; zeros ablate the latents. (batch, n) gives every row its own."""
    positions: Positions = "sentence"
    only: Tensor | None = None
    """bool (batch, n): the latents that each row sets, the others being left; None for all of them."""
    _writes: Tensor = field(init=False, repr=False)
    _values: Tensor = field(init=False, repr=False)
    _only: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        n = len(self.writes)
        if self.writes.ndim != 2 or self.values.ndim not in (1, 2) or self.values.shape[-1] != n:
            raise EmlabError(
                f"Clamping at {self.site} got values {tuple(self.values.shape)} for writes {tuple(self.writes.shape)}; "
                "give (n,) or (batch, n) values and (n, d_model) writes."
            )
        if self.only is not None and (self.only.dtype != torch.bool or self.only.shape[1:] != (n,)):
            raise EmlabError(
                f"Clamping {n} latents at {self.site} got `only` as {self.only.dtype} of shape "
                f"{tuple(self.only.shape)}; give a bool tensor (batch, {n})."
            )
        if not bool(self.values.isfinite().all()) or not bool(self.writes.isfinite().all()):
            raise EmlabError(f"Clamping at {self.site} got a value or a write that is not finite; give numbers.")
        # With a row for each row of the batch they are (batch, 1, n), to go with activations (batch, position, n).
        values = self.values.detach().float()
        only = torch.ones(n, dtype=torch.bool) if self.only is None else self.only.unsqueeze(-2)
        object.__setattr__(self, "_writes", self.writes.detach().float())
        object.__setattr__(self, "_values", values.unsqueeze(-2) if values.ndim == 2 else values)
        object.__setattr__(self, "_only", only)
        self._check_rows()

    def _by_row(self) -> dict[str, Tensor]:
        own = {"values": self.values} if self.values.ndim == 2 else {}
        return {**own, **({} if self.only is None else {"only": self.only}), **super()._by_row()}

    @property
    def width(self) -> int:
        return self._writes.shape[-1]

    def edit(self, h: Tensor, where: Tensor) -> Tensor:
        writes = self._on("_writes", h.device)
        _check(self.site, h, writes)
        wide = h.float()
        active = self.encode(wide)
        if active.shape != (*h.shape[:-1], len(writes)):
            raise EmlabError(
                f"The encoder at {self.site} gave {tuple(active.shape)} for activations {tuple(h.shape)}; it must give "
                f"one activation for each of the {len(writes)} latents."
            )
        change = (self._on("_values", h.device) - active) * self._on("_only", h.device)
        return torch.where(where.unsqueeze(-1), (wide + change @ writes).to(h.dtype), h)


@dataclass(frozen=True, eq=False)
class Replace(_Rows):
    """Put ``function(h)`` in the place of ``h``: an SAE's reconstruction, for example, or the mean."""

    site: Site
    function: Callable[[Tensor], Tensor]
    """From activations (…, d_model) to activations of the same shape."""
    positions: Positions = "all"

    def __post_init__(self) -> None:
        self._check_rows()

    @property
    def width(self) -> None:
        return None

    def edit(self, h: Tensor, where: Tensor) -> Tensor:
        return torch.where(where.unsqueeze(-1), self.function(h.float()).to(h.dtype), h)


def rows_of(edits: Sequence[Edit], index: Tensor, batch: int) -> list[Edit]:
    """The edits for the rows `index` (n,) of a batch of `batch` rows; EmlabError where one does not fit the batch."""
    for edit in edits:
        check_rows(edit, batch)
    return [edit if edit.n_rows is None else edit.rows(index) for edit in edits]


def check_rows(edit: Edit, batch: int) -> None:
    """EmlabError where the edit is made for another number of rows than a batch has."""
    if edit.n_rows not in (None, batch):
        raise EmlabError(f"The edit at {edit.site} has {edit.n_rows} rows for {batch} prompts; give one each.")


def _check(site: Site, h: Tensor, vectors: Tensor) -> None:
    if vectors.shape[-1] != h.shape[-1]:
        raise EmlabError(
            f"The edit at {site} has vectors of width {vectors.shape[-1]} in a stream of width {h.shape[-1]}; "
            "use a direction found in a model of the same width."
        )
