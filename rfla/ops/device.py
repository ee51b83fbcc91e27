"""Numbers of the host for a device, without a wait; types whatever a program's defaults are."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_ONE_THREAD = threading.RLock()


@contextmanager
def plain_defaults() -> Iterator[None]:
    """Make new tensors in float32 on the CPU in this block, whatever defaults a program has set.

    A function is decorated with it too. torch has one default type for all threads, so only one of
    them at a time is in such a block.
    """
    with torch.device("cpu"), _ONE_THREAD:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def to_device(values: float | Sequence[Any], device: torch.device) -> Tensor:
    """Make a tensor of Python numbers on a device.

    `torch.tensor(values, device=device)` would make the host wait until the device has done all
    that it was asked before.
    """
    made = torch.tensor(values, device="cpu")
    if made.is_floating_point() and made.dtype != torch.float32:  # a default of the program
        made = torch.tensor(values, dtype=torch.float32, device="cpu")
    return made.to(device, non_blocking=True)
