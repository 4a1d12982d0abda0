"""In which type weights are held while they are trained.

A bfloat16 number has 8 bits of precision: a step of 1e-5 from a weight of 0.02 is rounded away, and so is the next one.
So all weights that are trained are held in float32, with the optimiser's state, whatever type the model came in; the
passes multiply in float32 too, or by `Recipe.bf16` in bfloat16. An adapter's weights are held so by peft, and the
frozen weights below it keep their type and are multiplied in it.

The progress of a training, by which it goes on, and its kept steps are in float32 on the disk. The model that comes
back, its checkpoints and the folder they are saved to are in the model's own type again, each weight rounded once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def dtypes_of(model: Any) -> dict[str, torch.dtype]:
    """The type of each weight of a Hugging Face model."""
    return {name: weight.dtype for name, weight in model.named_parameters()}


def hold_in_float32(model: Any) -> None:
    """Hold all weights in float32; buffers stay as they are."""
    for weight in model.parameters():
        weight.data = weight.data.float()


def put_dtypes(model: Any, dtypes: Mapping[str, torch.dtype]) -> None:
    """Round the weights to the types that `dtypes_of` gave."""
    for name, weight in model.named_parameters():
        weight.data = weight.data.to(dtypes[name])


def half_precision(model: Any) -> str | None:
    """The mend where numbers that are no more finite are float16's doing; None where the weights are of other types."""
    if torch.float16 not in dtypes_of(model).values():
        return None
    return (
        "the model is in float16, which holds no number above 65,504, so load it with dtype='float32' or 'bfloat16' "
        "before the learning rate is lowered"
    )
