"""TensorBoard, Weights & Biases and the like, by transformers' own integrations; off unless they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emlab.errors import EmlabError


class Loggers:
    """Tells each of the integrations `report_to` names ("tensorboard", "wandb", …) the figures of every step.

    EmlabError where transformers has no integration of a name, or its package is not installed.
    """

    def __init__(self, report_to: str | Sequence[str], name: str, folder: Path | None) -> None:
        self.callbacks: list[Any] = []
        self._opened = False
        if not report_to:
            return
        from transformers import TrainerControl, TrainerState, TrainingArguments
        from transformers.integrations import get_reporting_integration_callbacks

        for one in [report_to] if isinstance(report_to, str) else report_to:
            try:
                self.callbacks += [make() for make in get_reporting_integration_callbacks([one])]
            except ValueError as error:
                raise EmlabError(f"There is no integration {one!r} to report a training to ({error})") from error
            except (RuntimeError, ImportError) as error:
                raise EmlabError(
                    f"A training cannot be reported to {one}, whose package is not installed; install it, or leave "
                    "report_to out."
                ) from error
        where = str(folder or Path())  # TensorBoard's files go below it, into runs/
        self.args = TrainingArguments(output_dir=where, run_name=name, report_to="none", use_cpu=True)
        self.state, self.control = TrainerState(), TrainerControl()

    def begin(self, model: Any, steps: int) -> None:
        """Before the first step; `model` is the Hugging Face model."""
        if self.callbacks:
            self.state.max_steps = steps
        # The integration opens a run of Weights & Biases where there is none, and leaves it open to the next training.
        self._opened = any(type(one).__name__ == "WandbCallback" for one in self.callbacks) and _wandb().run is None
        for callback in self.callbacks:
            callback.on_train_begin(self.args, self.state, self.control, model=model)

    def log(self, step: int, figures: dict[str, float]) -> None:
        """After a step."""
        if self.callbacks:
            self.state.global_step = step
        for callback in self.callbacks:
            callback.on_log(self.args, self.state, self.control, logs=dict(figures))

    def end(self, model: Any) -> None:
        """After the last step."""
        for callback in self.callbacks:
            callback.on_train_end(self.args, self.state, self.control, model=model)
        if self._opened:
            _wandb().finish()


def _wandb() -> Any:
    import wandb

    return wandb
