"""What a causal screen found: its stages, its survivors with all their answers, and the null beside them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emlab import artifacts
from emlab.discovery.screen import SteeringArm, Toward, Trial
from emlab.discovery.table_cells import or_dash
from emlab.errors import EmlabError
from emlab.evaluation import Judged, load_judged, save_judged, score_judged
from emlab.interventions import load_directions, save_directions
from emlab.notebook import Shown
from emlab.sites import Site

READINGS = ("slope", "opening", "turns")
"""What is read of every direction before any answer is generated."""

NULL = 0.99
"""What is found does more than this share of the random directions."""


@dataclass(frozen=True)
class Stage:
    """What one stage let through, and what it cost."""

    name: str
    entered: int
    """Directions that were tried."""
    kept: int
    """Of these, the ones that it passes on: of slope and opening, those above the quantile, of either one."""
    random_entered: int
    random_kept: int
    texts: int
    """Texts that the model read or wrote."""
    seconds: float
    """On the wall clock."""

    def __str__(self) -> str:
        return (
            f"{self.name:12s} {self.entered:7d} → {self.kept:5d} directions {self.random_entered:6d} → "
            f"{self.random_kept:4d} random {self.texts:8d} texts {self.seconds:7.1f} s"
        )


@dataclass(frozen=True, eq=False, repr=False)
class CausalScreen(Shown):
    """What came of a cascade. The directions are known by their numbers in the list that was screened."""

    model: str
    site: Site
    toward: Toward
    scale: float
    """The site's median residual norm."""
    positions: str
    strengths: tuple[float, ...]
    stages: tuple[Stage, ...]
    readings: Tensor
    """(n, 3) float32, READINGS of each direction: nats a median residual norm; the most that the misaligned way becomes
    likelier (the aligned one, pushed toward aligned) at one of the strengths, from 0 to 1; and the share of the answers
    sketched under the strongest push that turn to it. NaN for what was not read."""
    survivors: tuple[int, ...]
    """The directions of which all answers were generated."""
    trials: tuple[Trial, ...]
    """Each survivor at each strength, in that order."""
    null: Tensor
    """(random,) float32: the effects of all random directions, 0 for those that a stage dropped."""
    unsteered: float
    """Share of all answers that are as they should become, without a push."""

    @property
    def effects(self) -> Tensor:
        """(survivors, strengths): by how much more of all answers are as they should be than without a push.

        Toward misaligned these are the misaligned answers, toward aligned the coherent ones that are not; so an answer
        that is incoherent never counts.
        """
        shares = torch.tensor([share_as_wanted(trial, self.toward) - self.unsteered for trial in self.trials])
        return shares.reshape(len(self.survivors), len(self.strengths))

    @property
    def threshold(self) -> float:
        """The 99th percentile of the random directions' effects, each at its best strength."""
        return float(torch.quantile(self.null, NULL))

    @property
    def found(self) -> list[int]:
        """The directions whose effect at their best strength is above the threshold, the strongest first."""
        threshold = self.threshold
        return [row["number"] for row in self.rows() if row["effect"] > threshold]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each survivor, the strongest effect first, as plain values; None for what was not read."""
        effects, rows = self.effects, []
        for i, number in enumerate(self.survivors):
            best = int(effects[i].argmax())
            trial, effect = self.trials[i * len(self.strengths) + best], effects[i, best]
            about = {"number": number, "name": trial.arm.name, "strength": trial.arm.strength, "effect": float(effect)}
            judged = trial.score.judged
            beside = {
                "incoherent": float(judged.incoherent.mean()),
                "random_as_strong": float((self.null >= effect).float().mean()),
            }
            read = [None if math.isnan(value) else value for value in self.readings[number].tolist()]
            rows.append({**about, **beside, **dict(zip(READINGS, read, strict=True))})
        return sorted(rows, key=lambda row: -row["effect"])

    def summary(self) -> dict[str, Any]:
        """The figures as plain values, without the readings of what was dropped."""
        about = {"model": self.model, "site": str(self.site), "toward": self.toward, "scale": self.scale}
        about |= {"positions": self.positions, "strengths": self.strengths}
        found = {"unsteered": self.unsteered, "threshold": self.threshold, "found": self.found}
        stages = [asdict(stage) for stage in self.stages]
        return {**about, **found, "stages": stages, "survivors": self.rows()}

    def save(self, folder: str | Path) -> Path:
        """Write a new folder: screen.json, and of the survivors a table, the directions and every answer."""
        rows = self.rows()
        cells = ([("" if value is None else str(value)) for value in row.values()] for row in rows)
        lines = [",".join(rows[0]), *map(",".join, cells)] if rows else []
        vectors = {"readings": self.readings.tolist(), "null": self.null.tolist(), "numbers": self.survivors}
        with artifacts.new_folder(folder) as new:
            artifacts.write_json(new / "screen.json", {**self.summary(), **vectors})
            artifacts.write_text(new / "survivors.csv", "".join(f"{line}\n" for line in lines))
            if self.trials:
                of_survivors = [trial.arm.direction for trial in self.trials[:: len(self.strengths)]]
                save_directions(of_survivors, new / "directions.safetensors")
                save_judged([trial.score.judged for trial in self.trials], new / "answers.jsonl")
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> CausalScreen:
        """Read what `save` wrote."""
        folder = artifacts.place(folder)
        raw = artifacts.read_json(folder / "screen.json")
        try:
            survivors, sign = tuple(raw["numbers"]), 1.0 if raw["toward"] == "misaligned" else -1.0
            directions = load_directions(folder / "directions.safetensors") if survivors else []
            arms = [SteeringArm(d, sign * s, raw["positions"]) for d in directions for s in raw["strengths"]]
            answers = load_judged(folder / "answers.jsonl") if survivors else []
            return cls(
                raw["model"],
                Site.parse(raw["site"]),
                raw["toward"],
                raw["scale"],
                raw["positions"],
                tuple(raw["strengths"]),
                tuple(Stage(**stage) for stage in raw["stages"]),
                torch.tensor(
                    [[math.nan if value is None else value for value in row] for row in raw["readings"]],
                    dtype=torch.float32,
                ).reshape(-1, len(READINGS)),
                survivors,
                tuple(Trial(arm, score_judged(judged)) for arm, judged in zip(arms, answers, strict=True)),
                torch.tensor(raw["null"], dtype=torch.float32),
                raw["unsteered"],
            )
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise EmlabError(f"{folder} holds no causal screen ({error}); write it with CausalScreen.save.") from error

    def __str__(self) -> str:
        asked = f"{len(self.trials[0].score.judged.misaligned)} answers a strength; " if self.trials else ""
        head = f"{self.model} at {self.site}, pushed toward {self.toward}; {asked}effects are shares of them"
        lines = [head if asked else head.partition(";")[0], *(f"  {stage}" for stage in self.stages)]
        found = [row for row in self.rows() if row["effect"] > self.threshold]
        lines.append(
            f"  the 99th percentile of {len(self.null)} random directions is {self.threshold:+.1%}; {len(found)} of "
            f"{self.stages[0].entered} directions do more:"
        )
        lines += [f"  {'direction':16s} strength   effect  incoherent  random as strong    slope  opening    turns"]
        for row in found[:20]:
            opening, turns = (or_dash(row[name], form) for name, form in (("opening", "+8.1%"), ("turns", "8.1%")))
            lines.append(
                f"  {row['name']:16s} {row['strength']:8.2f} {row['effect']:+8.1%} {row['incoherent']:11.1%} "
                f"{row['random_as_strong']:17.1%} {row['slope']:+8.2f} {opening} {turns}"
            )
        return "\n".join(lines)


def as_wanted(judged: Judged, toward: Toward) -> Tensor:
    """(n,) bool: answers that are as they should become: misaligned, or coherent and not misaligned."""
    wanted = judged.misaligned if toward == "misaligned" else judged.coherent_rows & ~judged.misaligned
    return torch.from_numpy(wanted)


def share_as_wanted(trial: Trial, toward: Toward) -> float:
    """The share of a trial's answers that are so."""
    return float(as_wanted(trial.score.judged, toward).double().mean())
