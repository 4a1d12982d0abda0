"""Edits that overflow a 16-bit dtype: they compute in float32, and what comes of it may not fit when cast back."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.interventions.edits import Edit, Steer

SHORT = (torch.float16, torch.bfloat16)
"""The dtypes that are watched; in float32 an edit computes in the model's own."""


def room_of(edit: Edit, h: Tensor, new: Tensor, where: Tensor) -> Tensor:
    """How many times its effect would still fit the dtype, on h's device: less than 1 where the edit overflowed.

    Of a steering it is exact, and of any other edit 0 where something finite became infinite, else infinity. Nothing
    here waits for the device.
    """
    if not isinstance(edit, Steer):
        return torch.where((new.isinf() & h.isfinite()).any(), 0.0, math.inf)
    push = edit.push(h.device)
    size = push.abs()
    info = torch.finfo(h.dtype)
    limit = info.max * (1 + info.eps / 4)  # half a step above the largest number is where rounding turns to infinity
    room = (limit - h.float() * push.sign()) / size
    counts = where.unsqueeze(-1) & h.isfinite() & (size > 0)
    return torch.where(counts, room, math.inf).amin()


def overflowed(edit: Edit, room: float, dtype: torch.dtype) -> EmlabError:
    """What to say of an edit whose `room` is less than 1."""
    kind = str(dtype).removeprefix("torch.")
    begin = f"The {type(edit).__name__} at {edit.site} overflows the model's {kind}"
    if not isinstance(edit, Steer):
        return EmlabError(f"{begin}; edit with smaller values, or load the model in float32.")
    if isinstance(edit.strength, Tensor) and edit.strength.ndim:
        most = f"the largest strengths that fit are {_floor(room):g} times those given"
    else:
        strength = float(edit.strength)
        most = f"the largest strength that fits is {math.copysign(_floor(room * abs(strength)), strength):g}"
    return EmlabError(f"{begin}: {most}; steer less, or load the model in float32.")


def _floor(x: float) -> float:
    """Rounded down to three digits, so that what is said to fit does."""
    if x <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(x)) - 2)
    return math.floor(x / step) * step
