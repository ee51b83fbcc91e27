"""Numbers of the host for a device, without a wait."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def to_device(values: float | Sequence[Any], device: torch.device) -> Tensor:
    """Make a tensor of Python numbers on a device.

    `torch.tensor(values, device=device)` would make the host wait until the device has done all
    that it was asked before.
    """
    return torch.tensor(values).to(device, non_blocking=True)
