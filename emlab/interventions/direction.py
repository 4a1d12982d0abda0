"""Directions: unit vectors at a site, and the random ones that serve as the null."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.notebook import Shown
from emlab.sites import Site

RANDOM = "random"
"""How the name of a random direction begins."""


@dataclass(frozen=True, eq=False, repr=False)
class Direction(Shown):
    """A unit vector at a site. What is passed as `vector` is made unit, and its length is kept as `norm`."""

    vector: Tensor
    """(d_model,) float32, of length 1."""
    site: Site
    """Where it was found; its name, such as "resid_post.1", does as well."""
    origin: str
    """Where it comes from, in a few words: "latent 274", "mean difference", "random 3"."""
    norm: float | None = None
    """The natural length: of a mean difference, how far the means lie apart. By default the length as passed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", Site.parse(self.site))
        vector = self.vector.detach().float().cpu()
        if vector.ndim != 1:
            raise EmlabError(f"A direction must be one vector (d_model,), and {self.origin} is {tuple(vector.shape)}.")
        length = float(vector.norm())
        if not 0 < length < float("inf"):
            raise EmlabError(f"The direction {self.origin} at {self.site} has length {length}, so it points nowhere.")
        object.__setattr__(self, "vector", vector / length)
        if self.norm is None:
            object.__setattr__(self, "norm", length)

    def __neg__(self) -> Direction:
        return Direction(-self.vector, self.site, f"minus {self.origin}", self.norm)

    def __str__(self) -> str:
        return f"{self.origin} at {self.site} (natural norm {self.norm:.3g})"

    def cosine(self, other: Direction) -> float:
        """Cosine of the angle between the two."""
        return float(self.vector @ other.vector)

    def save(self, path: str | Path) -> None:
        """Write it as safetensors."""
        save_directions([self], path)

    @classmethod
    def load(cls, path: str | Path, named: str | None = None) -> Direction:
        """Read what `save` wrote; of a file of several, the one whose origin (or origin "at" site) is `named`.

        EmlabError where that leaves none or several.
        """
        held = load_directions(path)
        found = [d for d in held if named in (None, d.origin, f"{d.origin} at {d.site}")]
        if len(found) != 1:
            names = ", ".join(f"{d.origin} at {d.site}" for d in held)
            wanted = "" if named is None else f", {len(found) or 'none'} of them named {named!r}"
            raise EmlabError(
                f"{path} holds {len(held)} directions ({names}){wanted}; name one, or save it in a file of its own."
            )
        return found[0]


def random_directions(n: int, d_model: int, site: Site, seed: int) -> list[Direction]:
    """Directions drawn uniformly from the sphere: the null against which a found direction is held.

    Args:
        n: How many.
        d_model: Width of the site.
        site: What they are directions at.
        seed: Of the draws.
    """
    if n < 0:
        raise EmlabError(f"{n} random directions at {site} cannot be drawn; ask for 0 or more.")
    draws = torch.randn(n, d_model, generator=torch.Generator().manual_seed(seed))
    return [Direction(row, site, f"{RANDOM} {i}", norm=1.0) for i, row in enumerate(draws)]


def save_directions(directions: Sequence[Direction], path: str | Path) -> None:
    """Write directions into one safetensors file, their sites and origins in its metadata."""
    from safetensors.torch import save

    if not directions:
        raise EmlabError(f"There are no directions to write to {path}; give at least one.")
    about = [{"site": str(d.site), "origin": d.origin, "norm": d.norm} for d in directions]
    vectors = {f"direction_{i}": d.vector.contiguous() for i, d in enumerate(directions)}
    artifacts.write_bytes(Path(path), save(vectors, metadata={"directions": json.dumps(about)}))


def load_directions(path: str | Path) -> list[Direction]:
    """Read what `save_directions` wrote, in the same order."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {})["directions"])
            return [
                Direction(file.get_tensor(f"direction_{i}"), Site.parse(a["site"]), a["origin"], a["norm"])
                for i, a in enumerate(about)
            ]
    except FileNotFoundError as error:
        raise EmlabError(f"There is no file of directions {path}; check the path.") from error
    except OSError as error:
        why = "it is a folder" if Path(path).is_dir() else error
        raise EmlabError(f"{path} cannot be read as directions ({why}); give the file that save wrote.") from error
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise EmlabError(f"{path} holds no directions of emlab ({error}); write it with save_directions.") from error
