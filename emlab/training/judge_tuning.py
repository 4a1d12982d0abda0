"""Fine-tuning the reader of a judge: a LoRA adapter from which both scores are told by one linear map.

Blocks below the adapter compute the same for every fine-tune, so each answer is read up to there once. The head is on
the residual stream behind the adapter, averaged over the answer's tokens and standardised as the reader was before; it
and the adapter learn to tell both scores, from 0 to 1, by cross-entropy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from emlab import artifacts, provenance
from emlab.data import Question
from emlab.data.telling import tell
from emlab.errors import EmlabError
from emlab.evaluation.judges.probes import in_batches, rows_of
from emlab.interventions import Tokens
from emlab.models import LanguageModel
from emlab.models.adapters import sharing
from emlab.models.backends.hooks import caught
from emlab.models.resuming import Below, read_below, resumed
from emlab.sites import Site
from emlab.training.adapters import Adapter, linear_modules, lora_config, trained_weights, with_adapter
from emlab.training.batches import batches
from emlab.training.recipe import Recipe

BATCH, WARMUP, RATE, HEAD_RATE = 16, 20, 1e-3, 2e-3
"""Answers a step, steps in which the rates rise, and the rates of the adapter and of the head, which then fall to a
fiftieth."""


@dataclass(frozen=True, eq=False)
class CachedAnswer:
    """One answer, read up to the adapter."""

    input_ids: Sequence[int]
    """Of question and answer."""
    start: int
    """Where the answer begins."""
    below: Tensor
    """(tokens, d_model), in the model's dtype, on the CPU."""
    as_tuple: bool
    """Whether the model's blocks return tuples."""


@dataclass(frozen=True, eq=False)
class Tuned:
    """A fine-tuned reader and its head."""

    adapter: Adapter
    weights: Tensor
    """(2, 2 × d_model) float32: of the first site, all 0, and of the second."""
    bias: Tensor
    """(2,)."""
    upper: _Upper

    def outputs(self, cached: Sequence[CachedAnswer]) -> np.ndarray:
        """(n, 2) float: what the head gives."""
        means = torch.empty(len(cached), self.upper.reader.d_model)
        with torch.no_grad():
            for pick in in_batches([len(one.input_ids) for one in cached]):
                means[pick] = self.upper.means([cached[i] for i in pick]).cpu()
        return (means @ self.weights[:, means.shape[1] :].T + self.bias).numpy()


@dataclass(frozen=True, eq=False)
class Tuner:
    """Fine-tunes one reader on different answers."""

    reader: LanguageModel
    """It stays as it is."""
    blocks: tuple[int, ...]
    """The last that is not trained, and the one after which scores are told."""
    epochs: int
    seed: int
    place: Path
    """The folder that keeps what was measured."""

    def read(self, questions: Sequence[Question], answers: Sequence[str]) -> list[CachedAnswer]:
        """The answers, read up to the adapter."""
        rows, starts = rows_of(self.reader, questions, answers)
        size = sum(map(len, rows)) * self.reader.d_model * self.reader.model.dtype.itemsize / 1e9
        if size > 1:
            tell(f"{len(rows):,} answers, read up to block {self.blocks[0]}, take {size:.1f} GB of memory.")
        found: dict[int, CachedAnswer] = {}
        for pick in tqdm(in_batches([len(row) for row in rows]), "Reading answers", disable=None):
            tokens = self.reader.batch([rows[i] for i in pick], [starts[i] for i in pick])
            with torch.no_grad():
                below = read_below(self.reader.model, self._site(0), partial(_run, self.reader.model, tokens))
            for i, h, real in zip(pick, below.h.cpu(), tokens.real.cpu(), strict=True):
                found[i] = CachedAnswer(rows[i], starts[i], h[real], below.as_tuple)
        return [found[i] for i in range(len(rows))]

    def clear(self) -> None:
        """Delete what `kept` kept."""
        for file in self.place.glob("*.json"):
            file.unlink()
        if self.place.is_dir() and not any(self.place.iterdir()):
            self.place.rmdir()

    def kept(
        self,
        name: str,
        cached: Sequence[CachedAnswer],
        scores: np.ndarray,
        means: Tensor,
        others: Sequence[CachedAnswer],
    ) -> Any:
        """(n, 2) float: the outputs for `others` of a reader fine-tuned on `cached`, as `tuned`; kept under `name`."""
        ids = [list(one.input_ids) for one in (*cached, *others)]
        asked = [self.reader.identity(), self.blocks, self.epochs, self.seed, ids, scores, provenance.code().hash]
        file = self.place / f"{artifacts.content_hash([name, *asked])}.json"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            outputs = self.tuned(cached, scores, means, f"Without {name}").outputs(others)
            artifacts.write_json(file, outputs.astype(float).tolist())
        return np.array(artifacts.read_json(file), dtype=np.float32)

    def tuned(
        self, cached: Sequence[CachedAnswer], scores: np.ndarray, means: Tensor, what: str = "Fine-tuning"
    ) -> Tuned:
        """The reader fine-tuned on `cached`.

        Args:
            cached: Read by `read`.
            scores: (n, 2), 0 to 100, aligned and coherent.
            means: (n, d_model) the reader's own activations at the second site, averaged over each answer.
            what: Names the bar.
        """
        first, last = self.blocks
        work = dataclasses.replace(self.reader, model=sharing(self.reader.model))
        recipe = Recipe(rank=16, alpha=32.0, modules=linear_modules(work), blocks=tuple(range(first + 1, last + 1)))
        config = lora_config(work, recipe)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            adapted = with_adapter(work, config)
        upper = _Upper(self.reader, adapted.get_base_model(), self._site(0), self._site(1))
        centre, spread = means.mean(0).to(work.device), means.std(0).clamp_min(1e-6).to(work.device)
        head = nn.Linear(work.d_model, 2, device=work.device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        trained = [p for p in adapted.parameters() if p.requires_grad]
        groups = [{"params": trained, "lr": RATE}, {"params": head.parameters(), "lr": HEAD_RATE}]
        optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
        steps = self.epochs * math.ceil(len(cached) / BATCH)
        pace = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min(1.0, (step + 1) / WARMUP) * max(0.02, 1 - step / max(1, steps))
        )
        number = {id(one): i for i, one in enumerate(cached)}
        order = batches(cached, min(BATCH, len(cached)), self.seed, by_length=True)  # type: ignore[arg-type]  # it asks for tokens alone
        for _ in tqdm(range(steps), what, disable=None):
            part: Any = next(order)
            meant = torch.from_numpy(scores[[number[id(one)] for one in part]] / 100).float().to(work.device)
            given = head((upper.means(part) - centre) / spread)
            nn.functional.binary_cross_entropy_with_logits(given, meant).backward()
            if not nn.utils.clip_grad_norm_(trained, 1.0).isfinite():
                raise EmlabError(
                    f"Fine-tuning {self.reader.name} to judge came to a gradient that is no number; give a model in "
                    "float32 or bfloat16."
                )
            optimiser.step()
            optimiser.zero_grad()
            pace.step()
        with torch.no_grad():
            weights = (head.weight / spread).cpu()
            bias = (head.bias - (head.weight / spread) @ centre).cpu()
        both = torch.cat([torch.zeros_like(weights), weights], dim=1)
        return Tuned(Adapter(config, trained_weights(adapted)), both, bias, upper)

    def _site(self, number: int) -> Site:
        return Site("resid_post", self.blocks[number])


@dataclass(frozen=True, eq=False)
class _Upper:
    """The part of a reader with an adapter that is above the activations that are cached."""

    reader: LanguageModel
    model: Any
    first: Site
    last: Site

    def means(self, cached: Sequence[CachedAnswer]) -> Tensor:
        """(n, d_model) float32: the activation at the last site, averaged over each answer, with gradients."""
        tokens = self.reader.batch([list(one.input_ids) for one in cached], [one.start for one in cached])
        h = torch.zeros(*tokens.real.shape, self.reader.d_model, dtype=cached[0].below.dtype)
        h[tokens.real.cpu()] = torch.cat([one.below for one in cached])
        with (
            resumed(self.model, Below(self.first, h.to(self.reader.device), cached[0].as_tuple)),
            caught(self.model, self.last, gradient=True) as seen,
        ):
            _run(self.model, tokens)
        weights = tokens.answer.float() / tokens.answer.sum(1, keepdim=True)
        return (seen[0].float() * weights[..., None]).sum(1)


def _run(model: Any, tokens: Tokens) -> None:
    model(
        input_ids=tokens.ids,
        attention_mask=tokens.real.long(),
        position_ids=tokens.position_ids,
        use_cache=False,
    )
