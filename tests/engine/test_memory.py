"""The largest batch that fits, smaller batches when memory ran out, and other sizes of a batch."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
import torch

from rfla.cfg import Config, load_saved
from rfla.engine import memory
from rfla.engine.inference import Inference
from rfla.engine.loaders import rescale, scaled_size
from rfla.engine.step import TrainStep
from rfla.engine.trainer import train
from rfla.errors import ConfigError, RflaError
from rfla.ops.losses import mean_over_ranks, without_ranks


@pytest.mark.parametrize(
    ("capacity", "found"), [(0, 0), (1, 1), (2, 2), (7, 7), (8, 8), (100, 96), (10_000, 256)]
)
def test_largest_batch(capacity: int, found: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= capacity

    assert memory.largest_batch(fits) == found
    assert len(tried) <= 12
    assert len(set(tried)) == len(tried)


def test_batch_minus_one_needs_a_gpu(config: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match=r"batch=-1 looks for .* on a CPU give a number"):
        train(config(batch=-1))


def test_out_of_memory_in_the_first_epoch(
    config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At batch 4 the second step fails: the rest runs with two batches of 2 a step, same images."""
    seen: list[list[int]] = []
    real = TrainStep.forward_backward

    def limited(self: TrainStep, batch: Any, *rest: Any) -> Any:
        if len(batch) > 2 and self.state.position.batch == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.append(batch.indices.tolist())
        return real(self, batch, *rest)

    monkeypatch.setattr(TrainStep, "forward_backward", limited)
    result = train(config(batch=4, epochs=1))
    saved = load_saved(result.run_dir / "args.yaml")
    assert (saved.batch, saved.accumulate) == (2, 2)
    out = capsys.readouterr().out
    assert (
        "out of memory with batch=4: going on with batch=2 accumulate=2, which is the same step"
        in out
    )
    whole: list[list[int]] = []
    monkeypatch.setattr(
        TrainStep,
        "forward_backward",
        lambda *a, **k: whole.append(a[1].indices.tolist()) or real(*a, **k),
    )
    train(config(batch=4, epochs=1))
    assert [len(rows) for rows in seen] == [
        4,
        2,
    ]  # six images: one batch of 4, one of 2 (the last is not filled up)
    assert list(chain(*seen)) == list(chain(*whole))[:6]


def test_out_of_memory_with_a_single_image(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TrainStep, "forward_backward", fail)
    with pytest.raises(
        RflaError, match="out of memory with batch=1 in epoch 1; use a smaller imgsz= or model"
    ):
        train(config(batch=2, epochs=1))


def test_trial_batch_is_what_a_network_takes() -> None:
    images, targets = memory.trial_batch(2, 100, torch.device("cpu"))
    assert images.shape == (2, 3, 128, 128)
    assert targets[0]["boxes"].shape == (200, 4) and float(targets[0]["boxes"].max()) < 128


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


def test_peak_memory_is_told() -> None:
    assert memory.peak_mb(torch.device("cpu")) > 50


def test_out_of_memory_in_the_validation(
    config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Batches of 4 do not fit, those of 2 do: the epoch is kept, and the figures are equal."""
    usual = train(config(batch=4, epochs=1)).metrics
    real = Inference.__call__

    def limited(self: Inference, images: torch.Tensor, *rest: Any) -> Any:
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, images, *rest)

    monkeypatch.setattr(Inference, "__call__", limited)
    metrics = train(config(batch=4, epochs=1)).metrics
    assert usual is not None and metrics is not None and metrics.ap == pytest.approx(usual.ap)
    assert "out of memory in the validation: going on with smaller" in capsys.readouterr().out
    monkeypatch.setattr(Inference, "__call__", lambda *_: limited(_[0], torch.zeros(3)))
    with pytest.raises(RflaError, match="out of memory with batch=2: use a smaller batch="):
        train(config(batch=2, epochs=1))


def test_trials_of_batches_wait_for_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def exchange(_: Any) -> None:
        raise AssertionError("the others may be trying another size")

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", exchange)
    with without_ranks():
        assert float(mean_over_ranks(torch.tensor(3.0))) == 3.0
    with pytest.raises(AssertionError, match="another size"):
        mean_over_ranks(torch.tensor(3.0))
