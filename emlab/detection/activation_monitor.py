"""Monitors that read a model's activations: a direction's projection, a linear probe, one SAE latent or several.

Each is a function of one token's activation, so the same monitor scores prompts, answers, and tokens while they are
written; it can stand as the condition of an edit (`emlab.interventions.Conditional`).
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from emlab import artifacts, records
from emlab.data import Question
from emlab.detection.calibration import Calibration
from emlab.detection.evidence import Evidence, evidence
from emlab.detection.lineage import Lineage
from emlab.discovery.latents import check_latents, check_width
from emlab.errors import EmlabError
from emlab.notebook import Shown
from emlab.saes import check_site, dense_chunks
from emlab.saes.units import fold, row_lengths
from emlab.sites import Site

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sae_lens import SAE

    from emlab.models import LanguageModel


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear function of the activation: a projection, or a probe's log-odds."""

    weights: Tensor
    """(d_model,) float32."""
    bias: float = 0.0

    def __call__(self, h: Tensor) -> Tensor:
        if h.device != self.weights.device:  # moved once, and not with every token
            object.__setattr__(self, "weights", self.weights.to(h.device))
        return h.float() @ self.weights + self.bias


@dataclass(frozen=True, eq=False)
class Latents:
    """A weighted sum of SAE latents' activations, each times the length of its decoder row."""

    sae: SAE
    latents: tuple[int, ...]
    weights: Tensor
    """(n,) float32, of each latent."""
    bias: float = 0.0

    def __post_init__(self) -> None:
        check_latents(self.sae, self.latents)

    def __call__(self, h: Tensor) -> Tensor:
        flat, chosen = h.reshape(-1, h.shape[-1]), list(self.latents)
        read = torch.cat([dense[:, chosen] for _, dense in dense_chunks(self.sae, flat)])
        return (read @ self.weights.to(read) + self.bias).to(h.device).reshape(h.shape[:-1])

    def digest(self) -> str:
        """What tells the SAE from others: a hash of these latents' weights, as `load_sae` would fold them."""
        found, sae = hashlib.sha256(), self.sae
        if bool((row_lengths(sae) != 1).any()):
            sae = fold(copy.deepcopy(sae))
        for name, value in sorted(sae.state_dict().items()):
            rows = value[list(self.latents)] if value.shape[:1] == (sae.cfg.d_sae,) else value
            rows = rows[:, list(self.latents)] if rows.ndim == 2 and rows.shape[1] == sae.cfg.d_sae else rows
            found.update(f"{name} {tuple(value.shape)}".encode())
            found.update(rows.detach().float().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()[:16]


@dataclass(frozen=True, eq=False, repr=False)
class ActivationMonitor(Shown):
    """A monitor of one site of one model and its fine-tunes. Called on activations (…, d_model) it gives scores (…)."""

    name: str
    site: Site
    reads: Linear | Latents
    lineage: Lineage
    """The lineage of the models that it was fitted on."""
    calibration: Calibration | None = None
    """None where it was not calibrated."""

    def __post_init__(self) -> None:
        if isinstance(self.reads, Latents):
            check_site(self.reads.sae, self.site)

    def __call__(self, h: Tensor) -> Tensor:
        return self.reads(h)

    def scores(self, evidence: Evidence) -> np.ndarray:
        """(n,): of each row the mean over its tokens. EmlabError for another model, or a site that was not read."""
        self.lineage.check(evidence.lineage, self.site)
        return evidence.row_means(self.site, self(evidence.at(self.site).values))

    def read(
        self, model: LanguageModel, questions: Sequence[Question], answers: Sequence[str] | None = None
    ) -> np.ndarray:
        """(n,): the scores of `model` on questions, or on answers to them. EmlabError for another model."""
        self.check(model)
        return self.scores(evidence(model, questions, [self.site], answers))

    def check(self, model: LanguageModel) -> None:
        """EmlabError unless `model` is of the lineage that the monitor was fitted on."""
        self.lineage.check(Lineage.of(model), self.site)

    @property
    def threshold(self) -> float:
        """The score above which it raises an alarm. EmlabError where it was not calibrated."""
        if self.calibration is None:
            raise EmlabError(f"The monitor {self.name} has no threshold, as it was not calibrated; calibrate it first.")
        return self.calibration.threshold

    def save(self, path: str | Path) -> Path:
        """Write it as one safetensors file; of an SAE only which latents it reads, and what tells it from others."""
        from safetensors.torch import save

        about: dict[str, Any] = {
            "name": self.name,
            "site": str(self.site),
            "bias": self.reads.bias,
            "lineage": self.lineage,
            "calibration": self.calibration,
        }
        if isinstance(self.reads, Latents):
            about |= {"latents": self.reads.latents, "sae": self.reads.digest()}
        tensors = {"weights": self.reads.weights.detach().cpu().float().contiguous()}
        text = json.dumps(artifacts.plain(about))
        return artifacts.write_bytes(path, save(tensors, metadata={"monitor": text}))

    @classmethod
    def load(cls, path: str | Path, sae: SAE | None = None) -> ActivationMonitor:
        """Read what `save` wrote; one of latents needs the SAE again.

        EmlabError where the file holds no monitor, the SAE is missing, or is another one.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(artifacts.place(path)), framework="pt") as file:
                about, weights = json.loads((file.metadata() or {})["monitor"]), file.get_tensor("weights")
            lineage = records.restored(about["lineage"], Lineage, str(path))
            site, calibration = Site.parse(about["site"]), about["calibration"]
            calibration = records.restored(calibration, Calibration | None, str(path))
        except FileNotFoundError as error:
            raise EmlabError(f"There is no monitor {path}; check the path.") from error
        except OSError as error:
            why = "it is a folder" if Path(path).is_dir() else error
            raise EmlabError(f"{path} cannot be read as a monitor ({why}); give the file that save wrote.") from error
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise EmlabError(f"{path} holds no monitor of emlab ({error}); write it with its save.") from error
        reads: Linear | Latents = Linear(weights, about["bias"])
        if "latents" in about:
            if sae is None:
                raise EmlabError(f"The monitor {path} reads latents of an SAE, which it does not hold; give the SAE.")
            check_site(sae, site)
            check_width(sae, lineage.d_model, f"{lineage.model} at {site}")
            reads = Latents(sae, tuple(about["latents"]), weights, about["bias"])
            if reads.digest() != about["sae"]:
                raise EmlabError(f"The monitor {path} reads latents of another SAE; give the one it was fitted on.")
        return cls(about["name"], site, reads, lineage, calibration)

    def __str__(self) -> str:
        known = "" if self.calibration is None else f", alarm above {self.calibration.threshold:.4g}"
        return f"monitor {self.name} at {self.site}, fitted on {self.lineage.model}{known}"
