"""What a model costs: parameters, floating-point operations, memory.

Counted with torch's fake tensors, whose shapes flow and whose numbers are never computed: a few
seconds for any model and size. On a GPU the peak memory of one training step is measured as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from rfla.cfg.backbones import pixel_statistics
from rfla.cfg.model_schema import BackboneConfig
from rfla.cfg.weights_header import is_weights
from rfla.errors import ConfigError
from rfla.models.backbones.build import build_backbone
from rfla.models.detector import Detector, Target
from rfla.models.faster_rcnn import FasterRCNN
from rfla.models.rfd import RFD
from rfla.models.weights import build_from_metadata, number_in, object_sizes_in, read_metadata
from rfla.models.zoo import build_detector
from rfla.sizes import padded_side

MIB = 1024**2
STEP_BOXES = 60  # true boxes of the measured training step
USUAL_SIZE = 800  # px, of the authors' training
LARGEST_SIZE = 16384  # px, as `imgsz=` takes


@dataclass(frozen=True)
class Cost:
    """Cost of one square image.

    Attributes:
        model: name or file.
        imgsz: side of the input, px.
        parameters: all of them.
        trainable: those that learn with the model's own settings.
        gflops: 1e9 floating-point operations of a forward pass in evaluation mode, with as many
            proposals or second looks as the model takes at most; a multiply-add counts as two.
            Suppression and RoIAlign are left out.
        weights_mib: parameters and buffers in float32.
        activations_mib: what a training forward of the convolutions keeps for the backward pass,
            float32.
        step_peak_mib: peak of one training step on a GPU; None on a CPU.
        trained_on: how large the objects were that weights learnt, in words; "" if unknown.
    """

    model: str
    imgsz: int
    parameters: int
    trainable: int
    gflops: float
    weights_mib: float
    activations_mib: float
    step_peak_mib: float | None = None
    trained_on: str = ""

    def table(self) -> str:
        """The numbers, one a line."""
        rows = [
            ("model", self.model),
            ("input", f"{self.imgsz} x {self.imgsz} px, one image"),
            (
                "parameters",
                f"{self.parameters / 1e6:.2f} M, of which {self.trainable / 1e6:.2f} M learn",
            ),
            ("forward pass", f"{self.gflops:.1f} GFLOPs (a multiply-add is two)"),
            ("weights", f"{self.weights_mib:.0f} MiB (float32)"),
            ("activations", f"{self.activations_mib:.0f} MiB kept for the backward pass (float32)"),
        ]
        if self.step_peak_mib is not None:
            rows.append(("training step", f"{self.step_peak_mib:.0f} MiB peak on this GPU"))
        if self.trained_on:
            rows.append(("trained on", self.trained_on))
        return _aligned(rows)


@dataclass(frozen=True)
class BackboneCost:
    """Cost of a backbone alone for one square image, and what it gives.

    Attributes:
        name: as in `backbone.name`.
        imgsz: side of the input, px.
        parameters: all of them, without a classifier.
        gflops: as in `Cost`.
        strides: px between the cells of each map, finest first.
        channels: of each map.
        statistics: mean and deviation of RGB pixels from 0 to 255 that its own weights want.
    """

    name: str
    imgsz: int
    parameters: int
    gflops: float
    strides: Sequence[int]
    channels: Sequence[int]
    statistics: tuple[Sequence[float], Sequence[float]]

    def table(self) -> str:
        """The numbers, one a line."""
        maps = zip(self.strides, self.channels, strict=True)
        mean, std = (", ".join(f"{value:.6g}" for value in each) for each in self.statistics)
        return _aligned(
            [
                ("backbone", self.name),
                ("input", f"{self.imgsz} x {self.imgsz} px, one image"),
                ("parameters", f"{self.parameters / 1e6:.2f} M, without a classifier"),
                ("forward pass", f"{self.gflops:.1f} GFLOPs (a multiply-add is two)"),
                ("maps", ", ".join(f"stride {stride}: {each}" for stride, each in maps)),
                ("its weights", f"want RGB, mean {mean}, std {std}"),
            ]
        )


def _aligned(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def backbone_cost(name: str, imgsz: int | None = None) -> BackboneCost:
    """Count what a backbone costs for one image, and say which maps it gives.

    Args:
        name: as in `backbone.name`.
        imgsz: side in px, rounded up to a multiple of 32; None is 800.

    Raises:
        ConfigError: no such backbone, or it gives no pyramid.
    """
    size = padded_side(imgsz or USUAL_SIZE)
    with torch.device("meta"):
        net = build_backbone(BackboneConfig(name=name, frozen_stages=-1)).eval()
    net.show_stem()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, size, size, device="meta"))
    return BackboneCost(
        name=name,
        imgsz=size,
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        gflops=counter.get_total_flops() / 1e9,
        strides=net.strides,
        channels=net.channels,
        statistics=pixel_statistics(name),
    )


def cost(
    model: str,
    imgsz: int | None = None,
    num_classes: int = 8,
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
) -> Cost:
    """Count what a model costs for one image of imgsz x imgsz px.

    Args:
        model: zoo name, model YAML or weights file.
        imgsz: rounded up to a multiple of 32; None is the size that a weights file was trained at,
            and 800 for other models.
        num_classes: of a model that is not trained; a weights file knows its own.
        device: with `cuda` or `cuda:0` the peak memory of a training step is measured there.
        settings: of the model sections, dotted: `{"neck.start_level": 1}`; none for a weights file.

    Raises:
        ConfigError: a wrong setting, or any of a weights file, which has its own.
    """
    if settings and is_weights(model):
        raise ConfigError(f"{next(iter(settings))}: {model} has settings of its own")
    metadata = read_metadata(model) if is_weights(model) else None
    if imgsz is None:
        known = (metadata or {}).get("imgsz")
        imgsz = known if isinstance(known, int) and 1 <= known <= LARGEST_SIZE else USUAL_SIZE
    size = padded_side(imgsz)
    net = _build(model, num_classes, settings)
    with FakeTensorMode(allow_non_fake_inputs=True):
        image = torch.empty(1, 3, size, size)
        gflops = _forward_flops(net, image) / 1e9
        activations = _activation_bytes(net, image) / MIB
    parameters = list(net.parameters())
    stored = [*parameters, *net.buffers()]
    return Cost(
        model=model,
        imgsz=size,
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        gflops=gflops,
        weights_mib=sum(tensor.numel() * tensor.element_size() for tensor in stored) / MIB,
        activations_mib=activations,
        step_peak_mib=_step_peak(_build(model, num_classes, settings), size, device)
        if device.startswith("cuda")
        else None,
        trained_on=_trained_on(metadata or {}),
    )


def _trained_on(metadata: Mapping[str, Any]) -> str:
    """Say how large the objects were that weights learnt, in px of the input."""
    sizes = object_sizes_in(metadata)
    if sizes is None:
        return ""
    px_99, px_max = sizes
    gsd = number_in(metadata, "gsd")
    ground = f", {gsd:.3g} m a pixel (gsd)" if gsd is not None else ""
    return f"objects of up to {px_max:.0f} px of the input, 99 % up to {px_99:.0f} px{ground}"


def _build(model: str, num_classes: int, settings: Mapping[str, Any] | None) -> Detector:
    if is_weights(model):
        return build_from_metadata(read_metadata(model))
    return build_detector(model, num_classes, settings=settings)


def _forward_flops(net: Detector, image: Tensor) -> int:
    net.eval()
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.torchvision.deform_conv2d: _deform_flops}
    )
    with torch.no_grad(), counter:
        raw = net.raw(image)
        if isinstance(net, RFD):
            found = sum(min(level[0, 0].numel(), net.limits.nms_pre) for level in raw["cls"])
            net.look_again(raw, image.new_empty(1, found, 4))
        if isinstance(net, FasterRCNN):
            side, proposals = net.config.roi.pool_size, net.config.rpn.max_proposals
            for box_head in net.roi_head.bbox_head:
                box_head(image.new_empty(proposals, net.config.neck.width, side, side))
    return int(counter.get_total_flops())


def _deform_flops(
    input_shape: torch.Size,
    weight_shape: torch.Size,
    *_: object,
    out_shape: torch.Size,
    **__: object,
) -> int:
    """Those of the plain convolution of the same shape.

    The interpolation of the samples is left out.
    """
    return 2 * out_shape.numel() * weight_shape[1:].numel()


@contextmanager
def _counting(kept: dict[int, int]) -> Iterator[None]:
    """Note the storage of every tensor that autograd keeps, once each."""

    def pack(tensor: Tensor) -> Tensor:
        if isinstance(tensor, FakeTensor) and not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield


def _activation_bytes(net: Detector, image: Tensor) -> int:
    net.train()
    kept: dict[int, int] = {}
    with _counting(kept):
        raw = net.raw(image)
    kept_bytes = sum(kept.values())
    del raw  # until here its graph kept every storage alive, so that no two share a number
    return kept_bytes


def _step_peak(net: Detector, size: int, device: str) -> float:
    """Peak memory (MiB) of one forward and backward pass of one image in float32 on a GPU."""
    net = net.to(device).train()
    centers = (
        torch.rand(STEP_BOXES, 2, generator=torch.Generator().manual_seed(0)) * (size - 32) + 16
    )
    boxes = torch.cat((centers - 8, centers + 8), dim=1).to(device)
    target: Target = {
        "boxes": boxes,
        "labels": torch.zeros(STEP_BOXES, dtype=torch.int64, device=device),
    }
    torch.cuda.reset_peak_memory_stats(device)
    losses = net(torch.rand(1, 3, size, size, device=device), [target])
    torch.autograd.backward(torch.stack(list(losses.values())).sum())
    return torch.cuda.max_memory_allocated(device) / MIB
