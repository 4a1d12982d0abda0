"""PyTorch's Adam in one pass over memory, also for weights that are stored transposed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class FusedAdam(torch.optim.Adam):
    """`torch.optim.Adam` with `fused=True`: the same update and the same state, so either loads the other's checkpoint.

    PyTorch's fused kernel is several times slower on a CPU where a parameter is the transpose of a contiguous matrix.
    The update is elementwise, so it is given the matrix that lies in memory.
    """

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, fused=True, **options)

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> bool:
        complex_parameters = super()._init_group(group, *lists)
        parameters, gradients, means, squares = lists[:4]
        for i, matrices in enumerate(zip(parameters, gradients, means, squares, strict=True)):
            if all(m.ndim == 2 and not m.is_contiguous() and m.T.is_contiguous() for m in matrices):
                parameters[i], gradients[i], means[i], squares[i] = (m.T for m in matrices)
        return bool(complex_parameters)

    def state_dict(self) -> dict[str, Any]:
        """What a plain Adam of contiguous parameters would write.

        PyTorch's fused kernel is silently wrong where a parameter and its state are laid out differently.
        """
        plain = super().state_dict()
        plain["param_groups"] = [{**group, "fused": None} for group in plain["param_groups"]]
        plain["state"] = {
            number: {name: value.contiguous() for name, value in state.items()}
            for number, state in plain["state"].items()
        }
        return plain

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The state of this or of a plain Adam, laid out in memory as the parameters are."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["fused"], group["foreach"] = True, None
        for parameter, state in self.state.items():
            for name, value in state.items():
                if name == "step":  # the fused kernel wants it where the parameter is
                    state[name] = value.to(parameter.device, torch.float32)
                else:
                    state[name] = torch.empty_like(parameter).copy_(value)
