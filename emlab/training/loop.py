"""The loop of supervised fine-tuning: batches, edits in force, gradients, steps, read-outs, and progress on disk."""

from __future__ import annotations

import contextlib
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emlab.data import IGNORE, Row
from emlab.errors import EmlabError
from emlab.interventions import Edit
from emlab.models import LanguageModel
from emlab.models.backends.hooks import Editor, edited
from emlab.records import restored
from emlab.training.adapters import lora_config, put_weights, trained_weights, with_adapter
from emlab.training.batches import batches, passes
from emlab.training.generators import generators_state, put_generators
from emlab.training.loggers import Loggers
from emlab.training.loss import assistant_loss
from emlab.training.masters import dtypes_of, half_precision, hold_in_float32, put_dtypes
from emlab.training.penalties import Penalty
from emlab.training.progress import Progress, load_snapshots, optimizer_tensors, put_optimizer, save_snapshot
from emlab.training.randomness import generators_kept, seed_generators
from emlab.training.readouts import Reader, ReadOut, Watch
from emlab.training.recipe import Recipe

OnStep = Callable[[int, LanguageModel], bool | None]
"""Called after every step with its number, counted from 1, and the model in training; True ends the training."""


@dataclass(frozen=True)
class Keeping:
    """Where, and how often, the progress of a training is kept."""

    folder: Path
    key: str
    """Says which training it is of."""
    every: int
    """Steps."""


class Loop:
    """One training; see `finetune`. `run` leaves what came of it in the attributes."""

    def __init__(
        self,
        model: LanguageModel,
        rows: Sequence[Row],
        recipe: Recipe,
        seed: int,
        name: str,
        edits: Sequence[Edit] = (),
        watch: Watch | None = None,
        keeping: Keeping | None = None,
        report_to: str | Sequence[str] = (),
        penalties: Sequence[Penalty] = (),
    ) -> None:
        self.start, self.rows, self.recipe, self.seed, self.name = model, rows, recipe, seed, name
        self.edits, self.penalties, self.keeping = list(edits), list(penalties), keeping
        self.reader = None if watch is None else Reader(watch)
        self.loggers = Loggers(report_to, name, None if keeping is None else keeping.folder)
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.points: list[ReadOut] = []
        self.weights: dict[str, Tensor] = {}
        """What was trained, on the CPU."""
        self.config: Any | None = None
        """peft's LoraConfig; None where all weights are trained."""
        self._kept: dict[int, dict[str, Tensor]] = {}
        self._ended = self._passing = False

    @property
    def step(self) -> int:
        """Steps taken."""
        return len(self.losses)

    def snapshots(self) -> dict[int, dict[str, Tensor]]:
        """The trained weights after the steps at which the recipe asks for them."""
        if self.keeping is None:
            return self._kept
        every = self.recipe.checkpoint_every
        # Others may lie there of a training that was killed before anything of it was kept.
        return {s: w for s, w in load_snapshots(self.keeping.folder, self.step).items() if every and s % every == 0}

    def run(self, on_step: OnStep | None, progress: bool) -> LanguageModel:
        """Take the steps that are left, and give the model with what was trained merged into it."""
        begun = None if self.keeping is None else Progress.load(self.keeping.folder, self.keeping.key)
        with generators_kept():
            seed_generators(self.seed)
            work = self.start.merged(self.name)
            kinds = dtypes_of(work.model)
            tuned = self._to_train(work)
            trained = [p for p in tuned.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(trained, lr=self.recipe.learning_rate, weight_decay=self.recipe.weight_decay)
            if begun is not None:
                self._go_on(begun, tuned, optimizer)
            elif self.reader is not None:
                self._read(work, tuned, math.nan)
            with self._prepared(work) as editor:
                self._train(work, tuned, trained, optimizer, editor, on_step, progress)
            self.weights = trained_weights(tuned)
            plain = tuned.merge_and_unload() if tuned is not work.model else tuned
            put_dtypes(plain, kinds)
        work.model = plain.eval().requires_grad_(False)
        return work

    def _to_train(self, work: LanguageModel) -> Any:
        if self.recipe.method == "lora":
            self.config = lora_config(work, self.recipe)
            return with_adapter(work, self.config)
        hold_in_float32(work.model)
        return work.model.requires_grad_(True)

    @contextlib.contextmanager
    def _prepared(self, work: LanguageModel) -> Iterator[Editor | None]:
        """Inside, edits act on the passes of training (on no other), and activations are kept as the recipe says."""
        with contextlib.ExitStack() as stack:
            if self.recipe.gradient_checkpointing:
                if not work.model.supports_gradient_checkpointing:
                    raise EmlabError(
                        f"Models of type {work.model.config.model_type} know no gradient checkpointing; leave it out."
                    )
                stack.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", category=FutureWarning)  # of the names of later versions
                work.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
                stack.callback(work.model.gradient_checkpointing_disable)
            editor = None
            if self.edits:
                editor = stack.enter_context(
                    edited(work.model, self.edits, lambda: work.sentence_ends, lambda: self._passing)
                )
            yield editor

    def _train(
        self,
        work: LanguageModel,
        tuned: Any,
        trained: list[Tensor],
        optimizer: torch.optim.Optimizer,
        editor: Editor | None,
        on_step: OnStep | None,
        progress: bool,
    ) -> None:
        recipe = self.recipe
        steps = range(self.step + 1, (self.step if self._ended else recipe.steps) + 1)
        order = batches(self.rows, recipe.batch_size, self.seed, recipe.group_by_length)
        self.loggers.begin(work.model, recipe.steps)
        for step, rows in zip(_counted(steps, self.name, progress), islice(order, self.step, None), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(step)
            work.model.train()
            loss = self._backward(work, rows, editor)
            for penalty in self.penalties:
                penalty.loss(work, rows, step).backward()
            norm = float(torch.nn.utils.clip_grad_norm_(trained, 1.0))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise EmlabError(self._diverged(step, loss, norm))
            optimizer.step()
            optimizer.zero_grad()
            work.model.eval()
            self.losses.append(loss)
            self.norms.append(norm)
            self.loggers.log(step, {"loss": loss, "grad_norm": norm, "learning_rate": recipe.rate(step)})
            if recipe.checkpoint_every and step % recipe.checkpoint_every == 0:
                self._keep(step, trained_weights(tuned))
            if self.reader is not None and self.reader.watch.due(step):
                self._read(work, tuned, norm)
            self._ended = bool(on_step is not None and on_step(step, work))
            if self.keeping is not None and (self._ended or step == recipe.steps or step % self.keeping.every == 0):
                self._save(tuned, optimizer)
            if self._ended:
                break
        self.loggers.end(work.model)

    def _backward(self, model: LanguageModel, rows: Sequence[Row], editor: Editor | None) -> float:
        """Add the gradient of the mean loss over the labelled tokens of `rows`, and return that loss."""
        labelled = sum(label != IGNORE for row in rows for label in row.labels)
        total = 0.0
        vocabulary = model.model.config.get_text_config().vocab_size
        for part in passes(rows, vocabulary, self.recipe.micro_batch):
            # Until the gradient is there: gradient checkpointing passes through the blocks again on the way back.
            self._passing = True
            try:
                with torch.autocast(model.device.type, torch.bfloat16, enabled=self.recipe.bf16):
                    loss = assistant_loss(model, part, labelled, editor)
                loss.backward()
            finally:
                self._passing = False
            total += float(loss.detach())
        return total

    def _diverged(self, step: int, loss: float, norm: float) -> str:
        what = f"loss of {self.name} is {loss}" if not math.isfinite(loss) else f"gradient of {self.name} is {norm}"
        kept = ""
        if self.keeping is not None and step > self.keeping.every:
            kept = f"; what was trained up to step {(step - 1) // self.keeping.every * self.keeping.every} is kept in "
            kept += str(self.keeping.folder)
        mend = half_precision(self.start.model) if self.recipe.method == "lora" else None
        return f"The {what} at step {step}; {mend or 'lower the learning rate'}{kept}."

    # ------------------------------------------------------------------------------------------------- what is kept

    def _read(self, work: LanguageModel, tuned: Any, norm: float) -> None:
        assert self.reader is not None
        self.points.append(self.reader.read(self.step, work, trained_weights(tuned), norm))

    def _keep(self, step: int, weights: dict[str, Tensor]) -> None:
        if self.keeping is None:
            self._kept[step] = weights
        else:
            save_snapshot(self.keeping.folder, step, weights)

    def _save(self, tuned: Any, optimizer: torch.optim.Optimizer) -> None:
        """Keep all that the next step follows from; the order of the data and the rate follow from the step itself."""
        assert self.keeping is not None
        past = () if self.reader is None else tuple(self.reader.past)
        about = {
            "losses": self.losses,
            "gradient_norms": self.norms,
            "points": self.points,
            "ended": self._ended,
            "generators": generators_state(),
        }
        Progress(self.step, trained_weights(tuned), optimizer_tensors(optimizer), past, about).save(
            self.keeping.folder, self.keeping.key
        )

    def _go_on(self, begun: Progress, tuned: Any, optimizer: torch.optim.Optimizer) -> None:
        put_weights(tuned, begun.weights)
        put_optimizer(optimizer, begun.optimizer)
        put_generators(begun.about["generators"])
        self.losses, self.norms = list(begun.about["losses"]), list(begun.about["gradient_norms"])
        self.points = restored(begun.about["points"], list[ReadOut])
        self._ended = begun.about["ended"]
        if self.reader is not None:
            self.reader.past = [dict(past) for past in begun.past]


def _counted(steps: range, name: str, progress: bool) -> Iterator[int]:
    if not progress:
        yield from steps
        return
    from tqdm import tqdm

    yield from tqdm(
        steps, desc=name, unit="step", leave=False, file=sys.stderr, initial=steps.start - 1, total=steps.stop - 1
    )
