"""The largest batch that fits, and smaller batches when memory ran out."""

from collections.abc import Callable
from itertools import chain
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from rfla.cfg import Config, load_config, load_saved
from rfla.engine import memory
from rfla.engine.build import RunParts, build_run
from rfla.engine.distributed import World
from rfla.engine.state import Position
from rfla.engine.step import TrainStep
from rfla.engine.trainer import train
from rfla.engine.validator import judge_weights
from rfla.errors import ConfigError, RflaError
from rfla.models.ranks import mean_over_ranks, without_ranks


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


def test_smaller_batches_after_an_epoch_that_time_cut_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`time=` ended the first epoch after 3 of its steps; in the second memory runs out.

    5 batches of 2 a step are two whole steps, which are 8 batches of 4 a step.
    """
    monkeypatch.setattr("rfla.engine.build.training_loader", lambda *_: (None, None))
    state = SimpleNamespace(position=Position(epoch=1, batch=5, iteration=5), meter="kept")
    parts = SimpleNamespace(
        state=state, cfg=load_config({"accumulate": 2}), train_loader=Mock(), train_index=None
    )
    parts.world = parts.device = None
    RunParts.use_batches_of(parts, load_config({"accumulate": 4}))  # type: ignore[arg-type]
    assert (state.position.batch, state.meter) == (8, "kept")


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


def test_peak_memory_is_told() -> None:
    assert memory.peak_mb(torch.device("cpu")) > 50


def test_out_of_memory_in_the_validation(
    config: Callable[..., Config],
    memory_for: Callable[[int], list[int]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Batches of 4 do not fit, those of 2 do: the epoch is kept, and the figures are equal."""
    usual = train(config(batch=4, epochs=1)).metrics
    memory_for(2)
    metrics = train(config(batch=4, epochs=1)).metrics
    assert usual is not None and metrics is not None and metrics.ap == pytest.approx(usual.ap)
    assert "out of memory in the validation: going on with smaller" in capsys.readouterr().out
    memory_for(0)
    with pytest.raises(RflaError, match="out of memory with batch=2: use a smaller batch="):
        train(config(batch=2, epochs=1))


def test_out_of_memory_where_an_earlier_process_made_the_best_weights(
    config: Callable[..., Config], memory_for: Callable[[int], list[int]]
) -> None:
    """Batches of 4 do not fit, those of 2 do: the figures are equal."""
    cfg = config(batch=4, epochs=1)
    result = train(cfg)
    parts = build_run(cfg, World(), torch.device("cpu"))
    best = result.run_dir / "weights" / "best.safetensors"
    given = (best, cfg, parts.val_index, parts.protocol, parts.device, None)
    tried = memory_for(2)
    judged = judge_weights(*given)
    assert tried[0] == 4 and set(tried[1:]) <= {1, 2}
    assert result.metrics is not None and judged.metrics.ap == pytest.approx(result.metrics.ap)
    memory_for(0)
    with pytest.raises(torch.OutOfMemoryError):
        judge_weights(*given)
    parts.close()


def test_trials_of_batches_wait_for_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def exchange(_: Any) -> None:
        raise AssertionError("the others may be trying another size")

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", exchange)
    with without_ranks():
        assert float(mean_over_ranks(torch.tensor(3.0))) == 3.0
    with pytest.raises(AssertionError, match="another size"):
        mean_over_ranks(torch.tensor(3.0))


@pytest.mark.parametrize(
    ("text", "is_memory"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory", True),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_words_of_a_full_memory(text: str, is_memory: bool) -> None:
    assert memory.ran_out(RuntimeError(text)) is is_memory


def test_the_fullest_gpu_decides(config: Callable[..., Config]) -> None:
    cfg = config(batch=-1)
    settled, notes = memory.settle_batch(cfg, [9, 7])
    assert settled.batch == 14
    assert notes == ["batch=-1: training with batch=14, which fits into the memory of 2 GPUs"]
    assert memory.settle_batch(config(), [0, 0]) == (config(), [])


def test_no_larger_batch_than_there_are_images(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_fits", lambda *_: True)
    gpu, net = torch.device("cuda", 0), nn.Linear(1, 1)
    assert memory.largest_that_fits(config(batch=-1), net, gpu, images=100) == 100
    assert memory.largest_that_fits(config(batch=-1), net, gpu, images=10_000) == memory.LARGEST
    assert memory.largest_that_fits(config(batch=4), net, gpu, images=10) == 0
