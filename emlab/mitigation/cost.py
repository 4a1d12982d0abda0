"""What a training, or a remedy, takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingCost:
    """What something took."""

    trained: int = 0
    """Chats that went forwards and backwards."""
    read: int = 0
    """Chats that went forwards only; a sampled answer counts as one."""
    seconds: float = 0.0
    """By the clock."""

    def __add__(self, other: TrainingCost) -> TrainingCost:
        return TrainingCost(self.trained + other.trained, self.read + other.read, self.seconds + other.seconds)
