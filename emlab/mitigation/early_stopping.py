"""Early stopping: a monitor reads the model on prompts along its training, and the last quiet checkpoint is kept."""

from __future__ import annotations

from dataclasses import dataclass

from emlab.mitigation.cost import TrainingCost
from emlab.mitigation.course import Change
from emlab.mitigation.registry import remedy
from emlab.mitigation.treatment import Remedy, Treated, Treatment
from emlab.models import LanguageModel


@remedy
@dataclass(frozen=True)
class EarlyStopping(Remedy):
    """Stop the training where the monitor alarms, and keep the checkpoint before (the start, where it is the first)."""

    above: float = 0.3
    """It alarms above this, on the monitor's scale from 0 to 1."""
    every: int = 5
    """Steps between readings."""
    name = "early stopping"
    needs = ("monitor",)
    setting = "above"
    values = (0.5, 0.2)
    anew = True
    reinforcement = True
    place = 7

    def apply(self, treatment: Treatment) -> Treated:
        monitor, readings = treatment.materials.monitor, dict[int, float]()
        assert monitor is not None  # `treat` has looked

        def stop(step: int, model: LanguageModel) -> bool:
            if step % self.every:
                return False
            readings[step] = monitor.read(model)
            return readings[step] > self.above

        name = f"{treatment.training.start.name}, {self.name}"
        course = treatment.training.run(Change(every=self.every, stop=stop), name)
        kept, at = treatment.training.start, 0
        for step, model in course.checkpoints:
            if step not in readings:
                readings[step] = monitor.read(model)
            if readings[step] > self.above:
                break
            kept, at = model, step
        cost = course.cost + TrainingCost(read=len(readings) * len(monitor.prompts))
        return Treated(kept, cost=cost, note=f"kept step {at}")
