"""Data filtering: examples that a filter finds suspect are left out before the training."""

from __future__ import annotations

from dataclasses import dataclass, replace

from emlab.data import Dataset
from emlab.mitigation.cost import TrainingCost
from emlab.mitigation.course import Change, Supervised
from emlab.mitigation.registry import remedy
from emlab.mitigation.treatment import Remedy, Treated, Treatment

LEAST = 16
"""Fewer chats than this are not trained on."""


@remedy
@dataclass(frozen=True)
class Filtering(Remedy):
    """Train on what the filter lets through; where that is next to nothing, on nothing: the start model is kept."""

    name = "data filtering"
    needs = ("data_filter",)
    anew = True
    place = 8

    def apply(self, treatment: Treatment) -> Treated:
        by, training = treatment.materials.data_filter, treatment.training
        assert isinstance(training, Supervised) and by is not None  # `treat` has looked
        chats = training.chats
        scores = by.score(training.start, chats)
        kept = [example for example, score in zip(chats, scores.tolist(), strict=True) if score <= by.cutoff]
        read, note = TrainingCost(read=3 * len(chats)), f"{len(kept)} of {len(chats)} chats kept"
        if len(kept) < LEAST:
            return Treated(training.start, cost=read, note=f"{note}, too few to train on")
        done = self.train(treatment, Change(chats=Dataset.of(kept, "filtered")), note)
        return replace(done, cost=done.cost + read)
