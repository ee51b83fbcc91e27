"""Numbers of the host for a device, without a wait; types whatever a program's defaults are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make new tensors of a type in this block, whatever the program has set."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def to_device(values: float | Sequence[Any], device: torch.device) -> Tensor:
    """Make a tensor of Python numbers on a device.

    `torch.tensor(values, device=device)` would make the host wait until the device has done all
    that it was asked before.
    """
    return torch.tensor(values).to(device, non_blocking=True)
