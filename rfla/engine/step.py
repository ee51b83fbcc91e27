"""One optimiser step: forward and backward for each of its batches, then clip, update, average.

Nothing here waits for a GPU; what must be read from it is read between two steps. With
`multi_scale=` each batch gets another size, made on the device.

Shapes: B images of a batch, (H, W) px, G boxes of one image, I ignore regions. Boxes are xyxy px.
"""

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rfla.cfg import Config
from rfla.cfg.model_schema import NormalizeConfig
from rfla.data import Batch
from rfla.engine.device import autocast
from rfla.engine.inference import prepare_images
from rfla.engine.schedule import Schedule
from rfla.engine.state import RunState
from rfla.models.detector import StepLosses
from rfla.sizes import STRIDE

LARGEST_NORM = torch.finfo(torch.float32).max


class TrainStep:
    """Moves a run's network by one optimiser step at a time.

    Args:
        model: The network as it is called: itself, or averaging its gradients over the processes.
        state: Network, optimiser, average, scaler and meter.
        schedule: Learning rate of each step.
        normalize: How pixels become input.
        device: Where to compute.
        dtype: Half precision of the network's body; None for float32.
    """

    def __init__(
        self,
        model: nn.Module,
        state: RunState,
        schedule: Schedule,
        normalize: NormalizeConfig,
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self.model, self.state, self.schedule = model, state, schedule
        self.normalize, self.device, self.dtype = normalize, device, dtype

    def forward_backward(
        self, batch: Batch, cfg: Config, share: float, is_last: bool
    ) -> dict[str, Tensor]:
        """Add the gradients of one batch; return its loss parts.

        Args:
            batch: B images from the loader, uint8.
            cfg: Of the run, for `multi_scale`.
            share: Of this batch in its optimiser step.
            is_last: Whether `update` follows; only then do processes exchange gradients.
        """
        state, position = self.state, self.state.position
        batch = batch.to(self.device, non_blocking=True)
        images = prepare_images(batch.images, batch.image_sizes, self.normalize)
        sizes, targets = batch.image_sizes, batch.targets
        if cfg.multi_scale:
            seeds = (cfg.seed, position.epoch, position.batch)
            size = scaled_size(cfg.imgsz, cfg.multi_scale, seeds)
            images, sizes, targets = rescale(images, sizes, targets, size / cfg.imgsz)

        model = self.model
        # Gradients are exchanged once for a step, with its last batch.
        waits = isinstance(model, nn.parallel.DistributedDataParallel) and not is_last
        state.statistics.keep()
        with model.no_sync() if waits else nullcontext():  # type: ignore[operator]
            with autocast(self.device, self.dtype):
                step: StepLosses = model(images, targets, image_sizes=sizes, with_counts=True)
            losses = step.losses
            loss = torch.stack(list(losses.values())).sum()
            state.scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]

        state.statistics.take_back_unless(loss.detach().isfinite())
        state.meter.add_batch(batch.indices, losses, step.counts)
        return losses

    def update(self, clip_grad: float) -> None:
        """Move the weights at the schedule's learning rate; not where a gradient is not finite.

        Args:
            clip_grad: Largest norm of the gradient; 0 does not clip.
        """
        state = self.state
        # The rate follows from the number of the step, and from the time where that is limited, so
        # a resumed run needs no state of it.
        factor = self.schedule.factor(state.position.iteration, state.time_share)
        for group in state.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        state.scaler.unscale_(state.optimizer)
        trainable = [weight for weight in state.net.parameters() if weight.requires_grad]
        # A finite bound in any case: where the norm of finite gradients overflows, these become 0,
        # and not inf / inf.
        norm = nn.utils.clip_grad_norm_(trainable, clip_grad or LARGEST_NORM)

        # Without a scaler (on a CPU) a bad gradient is seen here; with one, the fused step itself
        # leaves the weights alone.
        if state.scaler.is_enabled() or bool(torch.isfinite(norm)):
            state.scaler.step(state.optimizer)
        state.scaler.update(None if self.dtype == torch.float16 else 1.0)
        state.optimizer.zero_grad(set_to_none=True)
        if state.ema is not None:
            state.ema.update()
        state.meter.add_step(norm)
        state.position.iteration += 1


def scaled_size(imgsz: int, share: float, seeds: Sequence[int]) -> int:
    """Draw a long side in px within `share` of `imgsz`, a multiple of the stride.

    Args:
        imgsz: The usual long side in px.
        share: Largest change, 0.25 for 75 % to 125 %.
        seeds: Of the draw: run, epoch and batch, so that it is the same after a resume and in every
            process.
    """
    lowest, highest = (
        round(imgsz * (1 - share) / STRIDE),
        round(imgsz * (1 + share) / STRIDE),
    )
    drawn = np.random.default_rng(list(seeds)).integers(max(lowest, 1), max(highest, 1) + 1)
    return int(drawn) * STRIDE


def rescale(
    images: Tensor,
    sizes: Sequence[tuple[int, int]],
    targets: Sequence[dict[str, Tensor]],
    factor: float,
) -> tuple[Tensor, list[tuple[int, int]], list[dict[str, Tensor]]]:
    """Resize a batch and its boxes; the result is padded to multiples of the stride again.

    Args:
        images: (B, 3, H, W) normalised, zero where padded.
        sizes: (h, w) of each image before padding.
        targets: Boxes (G, 4), labels, ignore (I, 4) of each image.
        factor: New px for each old px.
    """
    height, width = (max(1, round(side * factor)) for side in images.shape[-2:])
    resized = functional.interpolate(images, (height, width), mode="bilinear", antialias=factor < 1)
    resized = functional.pad(resized, (0, -width % STRIDE, 0, -height % STRIDE))
    ratios = (width / images.shape[-1], height / images.shape[-2])
    scale = torch.tensor(ratios * 2, dtype=images.dtype).to(images.device, non_blocking=True)
    moved = [
        target | {key: target[key] * scale for key in ("boxes", "ignore") if key in target}
        for target in targets
    ]
    new_sizes = [(min(height, round(h * factor)), min(width, round(w * factor))) for h, w in sizes]
    return resized, new_sizes, moved
