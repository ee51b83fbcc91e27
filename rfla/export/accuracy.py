"""How good and how fast the forms of a network are, on one split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from rfla.cfg import Config
from rfla.data import Annotations, load_data_spec, load_index
from rfla.data.pixel_range import range_of
from rfla.engine.distributed import World
from rfla.engine.inference import Inference, detect, judge, protocol_of, require_images
from rfla.engine.loaders import evaluation_loader
from rfla.engine.model_source import SourceModel, class_mapping
from rfla.errors import ConfigError
from rfla.names import metric_label

LEAST_FIGURE = 0.01
"""A figure below it is too small to say which share of it is lost."""
INSTEAD = {
    "int8=true": "half=true is more exact",
    "half=true": "without half nothing is lost",
}
"""What to type in place of a form that costs too much."""


class Figures(NamedTuple):
    """A form of a network on a split.

    Attributes:
        name: of the form.
        megabytes: size of its file.
        milliseconds: from uint8 pixels to boxes, an image.
        values: AP, AP50, and AP of each size range; -1 where nothing defines it.
    """

    name: str
    megabytes: float
    milliseconds: float
    values: dict[str, float]


@dataclass(frozen=True)
class Judge:
    """A split that forms of a network are run over.

    Attributes:
        cfg: names the data, and how it is read.
        device: where to compute.
    """

    cfg: Config
    device: torch.device

    def index(self, split: str) -> Annotations:
        """The images and boxes of a split."""
        spec = load_data_spec(str(self.cfg.data))
        return load_index(
            spec, split, fraction=self.cfg.fraction, value_range=range_of(self.cfg.normalize)
        )

    def __call__(self, name: str, megabytes: float, model: SourceModel) -> Figures:
        """Run a form over the split and judge it.

        Raises:
            DataError: the data cannot be read, or has no class in common with the model.
        """
        cfg, index = self.cfg, self.index(self.cfg.split)
        same = tuple(model.names) == tuple(index.names)
        mapping = None if same else class_mapping(model.names, index.names)
        inference = Inference(model.net.to(self.device), model.config.normalize, self.device)
        loader = evaluation_loader(cfg, index, World(), self.device)
        try:
            found, speed = detect(inference, loader, index, mapping)
        finally:
            loader.close()
        require_images(index, speed.images)
        protocol = protocol_of(cfg, load_data_spec(str(cfg.data)))
        metrics = judge(index, found, protocol).metrics
        shown = ("ap", "ap50", *(f"ap_{size}" for size in protocol.size_names[1:]))
        values = {key: metrics.figures[key] for key in shown if key in metrics.figures}
        times = speed.per_image()
        return Figures(name, megabytes, times["preprocess"] + times["inference"], values)


def table(rows: Sequence[Figures]) -> str:
    """The figures, a line for each form."""
    keys = list(rows[0].values)
    head = ["format", "MB", "ms", *map(metric_label, keys)]
    cells = [
        [
            row.name,
            f"{row.megabytes:.1f}",
            f"{row.milliseconds:.0f}",
            *(f"{row.values[key]:.3f}" if row.values[key] >= 0 else "-" for key in keys),
        ]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [head, *cells]) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, *cells]
    )


def refuse_loss(before: Figures, after: Figures, largest: float) -> None:
    """Refuse a form that finds too much less.

    Args:
        before: the network in float32.
        after: the form, `half=true` or `int8=true` by name.
        largest: share of each figure that may be lost.

    Raises:
        ConfigError: names every figure that loses too much.
    """
    losses = {
        key: 1 - after.values[key] / value
        for key, value in before.values.items()
        if value >= LEAST_FIGURE
    }
    if not losses:
        raise ConfigError(
            f"what {after.name} costs cannot be said: the network finds nothing in this split; "
            "force=true writes it all the same"
        )
    lost = [
        f"{metric_label(key)} {before.values[key]:.3f} to {after.values[key]:.3f} (-{loss:.1%})"
        for key, loss in losses.items()
        if loss > largest
    ]
    if lost:
        raise ConfigError(
            f"{after.name} costs more than max_loss={largest:g} of {', '.join(lost)}; nothing is "
            f"written; {INSTEAD[after.name]}, force=true writes it all the same"
        )
