"""A training step of FCOS or RFD never makes the host wait for a GPU: shown on fake CUDA tensors.

Fake tensors have shapes and devices but no values: reading a value, or a size that depends on one,
raises. A mode on top names what would also wait, a copy between host and device that is not asked
to be asynchronous.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from rfla.assign import PriorGrid
from rfla.cfg import Config, model_part
from rfla.data import Batch
from rfla.engine import build
from rfla.engine.ema import EMA
from rfla.engine.schedule import Schedule
from rfla.engine.state import RunState
from rfla.engine.step import TrainStep
from rfla.models import build_from_config, zoo
from rfla.models.detector import Detector
from rfla.models.fcos import FCOS
from rfla.models.rfd import RFD

READS_VALUES = {
    "aten._local_scalar_dense.default",
    "aten.nonzero.default",
    "aten.masked_select.default",
}


class Waits(TorchDispatchMode):
    """Remembers the operations for which the host would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, devices = str(func), {arg.device.type for arg in args if isinstance(arg, Tensor)}
        if name in READS_VALUES:
            self.found.append(name)
        if name.startswith(
            "aten._fused_"
        ):  # the step of the optimiser: one kernel, which fake tensors do not know
            return None
        result = func(*args, **(kwargs or {}))
        if name in ("aten._to_copy.default", "aten.copy_.default"):
            asynchronous = (kwargs or {}).get("non_blocking") or (
                name == "aten.copy_.default" and args[2:] == (True,)
            )
            if len(devices | {result.device.type}) > 1 and not asynchronous:
                self.found.append(f"{name} from {devices} to {result.device}")
        return result


class Scaler(torch.amp.GradScaler):
    """The real one, without its backward pass: autograd would look for the fake tensors' GPU."""

    parameters: list[Tensor]

    def scale(self, loss: Any) -> Any:
        super().scale(loss)

        def backward() -> None:
            for parameter in self.parameters:
                parameter.grad = torch.zeros_like(parameter)

        return SimpleNamespace(backward=backward)


@contextmanager
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors that claim to be on a GPU.

    Grids of priors are built on the host with values, and then moved.
    """
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    points = PriorGrid.points

    def real(*args: Any, **kwargs: Any) -> PriorGrid:
        with unset_fake_temporarily(), _disable_current_modes():
            return points(*args, **kwargs)

    monkeypatch.setattr(PriorGrid, "points", real)
    with FakeTensorMode(allow_non_fake_inputs=True, allow_fallback_kernels=False):
        yield


def step_on_fake_gpu(cfg: Config) -> TrainStep:
    """A training step whose network, optimiser and average claim to be on a GPU."""
    device = torch.device("cuda", 0)
    with torch.device("cuda"):
        net, twin = (build_from_config(model_part(cfg), num_classes=3).train() for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "copy.deepcopy", lambda _: twin
        )  # copying the storage of a fake tensor writes to no man's memory
        average = EMA(net, 0.9)
    scaler = Scaler("cuda", init_scale=1.0)
    scaler.parameters = list(net.parameters())
    state = RunState(net, build.optimizer_for(net, cfg, device), average, scaler)
    schedule = Schedule(epochs=1, iterations_per_epoch=9)
    return TrainStep(net, state, schedule, cfg.normalize, device, torch.bfloat16)


def exit_code_of(check: Callable[[], None]) -> int | None:
    """Run a check in a forked process; 0 where it holds.

    Autograd that has seen a GPU, a fake one too, starts threads, after which no forked process may
    use it; the tests of whole commands fork.
    """
    child = multiprocessing.get_context("fork").Process(target=check)
    child.start()
    child.join()
    return child.exitcode


def fake_batch() -> Batch:
    """Two images of different sizes, as they come from the loader: on the host, to be copied."""
    boxes = [torch.rand(count, 4) for count in (7, 0)]
    labels = [torch.zeros(len(one), dtype=torch.int64) for one in boxes]
    targets = [
        {"boxes": b, "labels": c, "ignore": torch.rand(2, 4)}
        for b, c in zip(boxes, labels, strict=True)
    ]
    sizes = [(64, 90), (50, 96)]
    return Batch(
        torch.zeros(2, 3, 64, 96, dtype=torch.uint8),
        sizes,
        targets,
        torch.arange(2),
        torch.ones(2, 2),
    )


QUALITY = {"loss.quality": "max"}
DETECTORS = [
    (FCOS, {}),
    (FCOS, QUALITY | {"loss.coding": "field"}),
    (RFD, QUALITY),
]


@pytest.mark.parametrize(("detector", "parts"), DETECTORS)
def test_a_step_never_waits(
    detector: type[Detector],
    parts: dict[str, str],
    config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the copy of the images to the running sums: network, assignment, optimiser, EMA."""
    monkeypatch.setitem(zoo.DETECTORS, "fcos", detector)  # the real one
    cfg = config(multi_scale=0.5, plots=False, optimizer="sgd", **parts)
    assert exit_code_of(lambda: take_a_step(cfg, monkeypatch)) == 0


def take_a_step(cfg: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two halves of a batch forward and backward, and an update; nothing in it may wait."""
    with fake_gpu(monkeypatch):
        step, batch = step_on_fake_gpu(cfg), fake_batch()
        # The optimiser and the scaler begin.
        step.forward_backward(batch, cfg, share=0.5, is_last=False)
        with Waits() as waits:
            for is_last in (False, True):
                losses = step.forward_backward(batch, cfg, share=0.5, is_last=is_last)
                step.state.position.batch += 1
            step.update(cfg.clip_grad)
        assert all(part.device.type == "cuda" for part in losses.values())
    assert step.state.scaler.is_enabled() and step.state.meter.updates == 1
    assert waits.found == []


@pytest.mark.parametrize(("detector", "parts"), DETECTORS)
def test_the_backward_pass_reads_no_value(
    detector: type[Detector],
    parts: dict[str, str],
    config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its operations do not depend on the device, so they are watched on the CPU."""
    monkeypatch.setitem(zoo.DETECTORS, "fcos", detector)
    net = build_from_config(model_part(config(**parts)), num_classes=3).train()
    targets = [
        {
            "boxes": torch.tensor([[4.0, 5, 14, 19]]),
            "labels": torch.tensor([1]),
            "ignore": torch.zeros(0, 4),
        }
    ]
    loss = torch.stack(list(net(torch.rand(1, 3, 64, 64), targets).values())).sum()
    with Waits() as waits:
        loss.backward()
    assert waits.found == []


def test_the_watch_sees_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_gpu(monkeypatch), Waits() as waits:
        there = torch.zeros(3, device="cuda")
        torch.ones(3).to("cuda", non_blocking=True)
        assert waits.found == []
        there.new_tensor(1.0)
        there.copy_(torch.ones(3))
        assert len(waits.found) == 2
        with pytest.raises(DataDependentOutputException):
            bool(there[0])
    assert len(waits.found) == 3
