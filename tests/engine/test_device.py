"""In which precision a device computes."""

import pytest
import torch

from rfla.engine import device
from rfla.engine.device import autocast_dtype

CPU = torch.device("cpu")


def test_a_cpu_computes_in_bfloat16_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: True)
    chosen = [autocast_dtype(CPU, amp) for amp in (False, True, "bf16", "fp16")]
    assert chosen == [None, None, torch.bfloat16, None]


def test_a_processor_without_bfloat16_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: False)
    device._say_that_it_computes_in_float32.cache_clear()
    assert autocast_dtype(CPU, True) is None and not caplog.messages
    assert [autocast_dtype(CPU, "bf16") for _ in range(2)] == [None, None]
    assert caplog.messages == [
        "amp=bf16: this processor has no bfloat16 instructions; it computes in float32"
    ]
