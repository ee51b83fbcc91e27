"""Numbers for a device, and blocks in which a program's defaults of torch do not count."""

import threading
import time

import pytest
import torch

from rfla.ops.device import plain_defaults, to_device


def test_numbers_arrive():
    assert to_device([1, 2], torch.device("cpu")).tolist() == [1, 2]
    assert to_device(3.0, torch.device("cpu")).dtype == torch.float32
    assert to_device([(4, 5)], torch.device("cpu")).dtype == torch.int64


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_numbers_that_a_programs_default_type_does_not_hold(kind):
    torch.set_default_dtype(kind)
    try:
        made = to_device([257.0, 70_001.0], torch.device("cpu"))
    finally:
        torch.set_default_dtype(torch.float32)
    assert made.dtype == torch.float32
    assert made.tolist() == [257.0, 70_001.0]


def test_threads_leave_a_programs_default_type_alone():
    """Two blocks that would overlap, in a program that computes in float64."""
    seen = []

    def load(pause: float) -> None:
        time.sleep(pause)
        with plain_defaults():
            time.sleep(0.1)
            seen.append(torch.zeros(1).dtype)

    torch.set_default_dtype(torch.float64)
    try:
        threads = [threading.Thread(target=load, args=(pause,)) for pause in (0, 0.05)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert torch.get_default_dtype() == torch.float64
        assert to_device(1.5, torch.device("cpu")).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    assert seen == [torch.float32] * 2


def test_a_block_within_another():
    with plain_defaults(), plain_defaults():
        assert torch.zeros(1).dtype == torch.float32
