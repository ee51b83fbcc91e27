"""The update of a step, and other sizes of a batch for `multi_scale=`."""

from typing import Any

import pytest
import torch
from torch import nn

from rfla.engine.optimizer import build_optimizer
from rfla.engine.schedule import Schedule
from rfla.engine.state import RunState
from rfla.engine.step import TrainStep, rescale, scaled_size


def test_sizes_of_multi_scale() -> None:
    sizes = [scaled_size(640, 0.25, (0, 1, batch)) for batch in range(60)]
    assert set(sizes) == {480 + 32 * i for i in range(11)}
    assert sizes == [scaled_size(640, 0.25, (0, 1, batch)) for batch in range(60)]
    assert scaled_size(32, 0.9, (0, 0, 0)) >= 32


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_boxes_move_with_the_pixels(factor: float) -> None:
    """A white square of 16 px in a 64 x 96 picture: after resizing it is where its box is."""
    images = torch.zeros(1, 3, 64, 96)
    images[..., 32:48, 48:64] = 1
    target = {
        "boxes": torch.tensor([[48.0, 32, 64, 48]]),
        "labels": torch.tensor([0]),
        "ignore": torch.zeros(0, 4),
    }
    resized, sizes, targets = rescale(images, [(64, 90)], [target], factor)
    assert resized.shape[-2] % 32 == resized.shape[-1] % 32 == 0
    assert sizes == [(round(64 * factor), round(90 * factor))]
    ys, xs = torch.nonzero(resized[0, 0] > 0.5, as_tuple=True)
    found = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
    assert (
        targets[0]["boxes"][0].tolist()
        == found
        == [48 * factor, 32 * factor, 64 * factor, 48 * factor]
    )
    assert targets[0]["labels"] is target["labels"]


def one_step(net: Any, rate: float, scaler: torch.amp.GradScaler) -> TrainStep:
    """SGD of a layer after a batch with a loss of 1; its gradient is still to be set."""
    groups = [{"params": [net.weight], "lr": rate, "base_lr": rate, "weight_decay": 0.0}]
    optimizer = build_optimizer("sgd", groups, rate, 0.9, fused=scaler.is_enabled())
    state = RunState(net, optimizer, None, scaler)
    schedule = Schedule(epochs=1, iterations_per_epoch=1, warmup_iterations=0)
    normalize: Any = None
    step = TrainStep(net, state, schedule, normalize, torch.device("cpu"), None)
    scaler.scale(torch.zeros(()))
    state.meter.add_batch(torch.tensor([0]), {"loss": torch.tensor(1.0)}, {})
    return step


@pytest.mark.parametrize("scaled", [True, False])
def test_a_step_by_hand(scaled: bool) -> None:
    """Rate 0.5 and a gradient of 10, clipped to 2: the weight goes from 1 to 0."""
    net: Any = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    step = one_step(net, 0.5, torch.amp.GradScaler("cpu", init_scale=1.0, enabled=scaled))
    net.weight.grad = torch.full((1, 1), 10.0)
    step.update(2.0)
    assert net.weight.item() == pytest.approx(0.0, abs=1e-5)
    assert step.state.meter.means()["grad_norm"] == pytest.approx(10.0)
    assert step.state.position.iteration == 1


@pytest.mark.parametrize("clip_grad", [0.0, 35.0])
def test_a_gradient_whose_norm_overflows_moves_nothing(clip_grad: float) -> None:
    """Four gradients of 3e38 are finite, so the scaler lets them pass; their norm is 6e38."""
    net: Any = nn.Linear(4, 1, bias=False)
    before = net.weight.detach().clone()
    step = one_step(net, 1.0, torch.amp.GradScaler("cpu", init_scale=1.0))
    net.weight.grad = torch.full((1, 4), 3e38)
    step.update(clip_grad)
    assert torch.equal(net.weight.detach(), before)
    assert [parts for _, parts in step.state.take_bad_batches()] == [["gradient"]]
