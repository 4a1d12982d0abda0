"""How alike directions are: their cosines, and whether those of several fine-tunes converge on one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.interventions import Direction
from emlab.notebook import Shown
from emlab.records import Saved


@dataclass(frozen=True, eq=False, repr=False)
class Cosines(Shown, Saved):
    """The cosines among some directions."""

    names: tuple[str, ...]
    values: Tensor
    """(n, n) float32, symmetric, 1 on the diagonal."""

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.names),) * 2:
            raise EmlabError(
                f"{len(self.names)} names have no {tuple(self.values.shape)} cosines; give a row for each."
            )

    def between(self, one: str, other: str) -> float:
        """The cosine of two by name."""
        for name in (one, other):
            if name not in self.names:
                raise EmlabError(f"There is no direction {name!r} here; there are {', '.join(self.names)}.")
        return float(self.values[self.names.index(one), self.names.index(other)])

    def save(self, path: str | Path) -> Path:
        """Write them as JSON, and beside it, ending .csv, as a table."""
        path = artifacts.place(path)
        quoted = ['"' + name.replace('"', '""') + '"' for name in self.names]
        lines = [",".join(["direction", *quoted])]
        lines += [
            ",".join([n, *(f"{v:.6g}" for v in row)]) for n, row in zip(quoted, self.values.tolist(), strict=True)
        ]
        artifacts.write_text(path.with_suffix(".csv"), "\n".join(lines) + "\n")
        return artifacts.write_json(path, {"names": self.names, "values": self.values})

    def __str__(self) -> str:
        width = max(map(len, self.names))
        head = f"{'':{width}s} " + " ".join(f"{i:6d}" for i in range(len(self.names)))
        rows = [
            f"{name:{width}s} " + " ".join(f"{value:+6.2f}" for value in row) + f"   {i}"
            for i, (name, row) in enumerate(zip(self.names, self.values.tolist(), strict=True))
        ]
        return "\n".join([head, *rows])


@dataclass(frozen=True, repr=False)
class Convergence(Shown):
    """How far directions found in several fine-tunes are one direction."""

    mean: float
    """Mean cosine over their pairs."""
    least: float
    pairs: int
    null: float
    """The 95th percentile of the cosines' sizes among null directions; NaN where none were given."""

    def __str__(self) -> str:
        return f"mean cosine {self.mean:.2f}, least {self.least:.2f}, of {self.pairs} pairs; by chance {self.null:.2f}"


def cosines(directions: Sequence[Direction], names: Sequence[str] | None = None) -> Cosines:
    """The cosines among `directions`, called by `names`, or else by where they come from and their site."""
    if not directions:
        raise EmlabError("There are no directions to compare; give at least one.")
    widths = {len(d.vector) for d in directions}
    if len(widths) > 1:
        raise EmlabError(
            f"Directions of widths {', '.join(map(str, sorted(widths)))} cannot be compared; give one kind."
        )
    if names is not None and len(names) != len(directions):
        raise EmlabError(f"There are {len(names)} names for {len(directions)} directions; give each its own.")
    called = tuple(names or (f"{d.origin} at {d.site}" for d in directions))
    vectors = torch.stack([d.vector for d in directions])
    values = (vectors @ vectors.T).clamp(-1, 1).fill_diagonal_(1.0)
    return Cosines(called, values)


def convergence(directions: Sequence[Direction], nulls: Sequence[Direction] = ()) -> Convergence:
    """How alike the directions of several fine-tunes are, beside what `nulls` are by chance."""
    if len(directions) < 2:
        raise EmlabError(f"Whether directions converge takes two of them at least, not {len(directions)}; give more.")
    own = _pairs(cosines(directions))
    chance = float(_pairs(cosines(nulls)).abs().quantile(0.95)) if len(nulls) > 1 else float("nan")
    return Convergence(float(own.mean()), float(own.min()), len(own), chance)


def _pairs(of: Cosines) -> Tensor:
    """(n (n − 1) / 2,): each pair once."""
    first, second = torch.triu_indices(len(of.names), len(of.names), offset=1)
    return of.values[first, second]
