"""Measured receptive fields in a training: on which images, when, and the same in all processes."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from rfla.cfg import Config
from rfla.cfg.model_schema import NormalizeConfig
from rfla.data import Annotations, DetectionDataset
from rfla.data.image_header import set_max_pixels
from rfla.engine.distributed import World, agreed, gather
from rfla.engine.inference import prepare_images
from rfla.errors import ConfigError, DataError
from rfla.models.detector import Detector
from rfla.models.detector_fields import measured_sides, measures_fields, use_sides

IMAGES = 8  # between such sets a side differs by 0.3 to 3 %, between single images by 1 to 7 %


def check_fields(cfg: Config) -> None:
    """Refuse to refresh what is not measured.

    Raises:
        ConfigError: with the two keys.
    """
    section = cfg.assigner
    if section.refresh_fields and not measures_fields(section):
        raise ConfigError(
            f"assigner.refresh_fields={section.refresh_fields} measures receptive fields again: "
            "it needs assigner.name=rfla assigner.fields=measured"
        )


def field_images(
    cfg: Config,
    index: Annotations,
    normalize: NormalizeConfig,
    device: torch.device,
    count: int = IMAGES,
) -> list[Tensor]:
    """Return images (3, H, W) of a split as the network sees them, evenly spread over it.

    Args:
        cfg: Size and decoding.
        index: The split.
        normalize: Of the network.
        device: Where it computes.
        count: How many; fewer where the split has fewer, or some cannot be read.

    Raises:
        DataError: Not one can be read.
    """
    set_max_pixels(cfg.max_pixels)
    dataset = DetectionDataset(index, cfg.imgsz)
    count = min(count, len(index))
    images = []
    for place in range(count):
        pixels = torch.from_numpy(dataset[place * len(index) // count].image)
        if len(pixels):
            batch = pixels.permute(2, 0, 1)[None].to(device)
            size = (batch.shape[-2], batch.shape[-1])
            images.append(prepare_images(batch, [size], normalize)[0])
    if not images:
        raise DataError(f"{index.name}: no image to measure receptive fields on could be read")
    return images


def measure_for_all(
    net: nn.Module,
    cfg: Config,
    index: Annotations,
    normalize: NormalizeConfig,
    world: World,
    device: torch.device,
) -> list[float]:
    """Measure the fields in the main process and use them in all; return their sides, px.

    All processes call this.
    """
    sides: list[float] | None = None
    with agreed(world):
        if world.is_main:
            # A compiled part would be compiled again for these sizes, and may not go back twice.
            eager = torch.compiler.set_stance("force_eager") if cfg.compile else nullcontext()
            with eager:
                sides = measured_sides(
                    cast(Detector, net), field_images(cfg, index, normalize, device)
                )
    sides = gather(world, sides)[0]
    assert sides is not None
    use_sides(net, sides)
    return sides


def shown(sides: Sequence[float]) -> str:
    """Return sides as people read them."""
    return ", ".join(f"{side:.0f}" for side in sides) + " px"
