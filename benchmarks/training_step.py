"""Time of one training step against torchvision's own detectors, paired in one process.

    python benchmarks/training_step.py [--device cuda] [--size 512] [--batch 2] [--repeats 5]

Same input size, class count, frozen layers (stem and first stage), batch norm on stored statistics,
boxes, proposals and RoIs. The resize inside torchvision's models is switched off by their min_size;
its FCOS runs on P3 to P7 like `fcos`. The two take turns; the ratio is that of the medians. On a
CPU the seconds are those of the process, summed over its threads, so that other programs do not
count. Anchors differ in kind, not in number: both RPNs have three at each cell of P2 to P6.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn, fcos_resnet50_fpn

from rfla.models import build_detector

CLASSES = 8
BOXES = 60
PROPOSALS, ROIS = 1000, 512


def make_batch(
    batch: int, size: int, device: str, boxes: int = BOXES
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Random images, and so many boxes of 6 to 32 px in each."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, size, size, generator=generator).to(device)
    targets = []
    for _ in range(batch):
        corner = torch.rand(boxes, 2, generator=generator) * (size - 40)
        side = 6 + torch.rand(boxes, 2, generator=generator) * 26
        labels = torch.randint(0, CLASSES, (boxes,), generator=generator)
        targets.append(
            {"boxes": torch.cat((corner, corner + side), 1).to(device), "labels": labels.to(device)}
        )
    return images, targets


def ours(name: str) -> nn.Module:
    """Our detector with the settings that torchvision's has."""
    two_stage = {"rpn.nms_pre": PROPOSALS, "rpn.max_proposals": PROPOSALS, "roi.samples": ROIS}
    settings = {
        "backbone.frozen_stages": 1,
        "backbone.norm_eval": True,
        "backbone.norm_trainable": False,
    }
    return build_detector(
        name, CLASSES, "rfla", settings | (two_stage if name == "faster_rcnn" else {})
    )


def theirs(name: str, size: int) -> nn.Module:
    """Detector of torchvision from random weights, with the same layers frozen."""
    build = fcos_resnet50_fpn if name == "fcos" else fasterrcnn_resnet50_fpn
    extra = (
        {}
        if name == "fcos"
        else {"rpn_pre_nms_top_n_train": PROPOSALS, "rpn_post_nms_top_n_train": PROPOSALS}
    )
    background = 0 if name == "fcos" else 1
    net = build(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + background,
        min_size=size,
        max_size=size,
        **extra,
    )
    body = net.backbone.body
    for module in (body.conv1, body.bn1, body.layer1):
        module.requires_grad_(False)
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    return net


def training_step(
    net: nn.Module, run: Callable[[], dict[str, Tensor]], device: str
) -> Callable[[], float]:
    """One step of SGD as a function that returns its seconds."""
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9)

    clock = time.perf_counter if device == "cuda" else time.process_time

    def step() -> float:
        begin = clock()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            losses = run()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(sum(losses.values()))
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return clock() - begin

    return step


def compare(name: str, options: argparse.Namespace) -> None:
    """Print the medians of both and their ratio."""
    images, targets = make_batch(options.batch, options.size, options.device)
    own, other = (
        ours(name).to(options.device).train(),
        theirs(name, options.size).to(options.device).train(),
    )
    for module in other.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    shifted = [{**target, "labels": target["labels"] + (name != "fcos")} for target in targets]
    steps = (
        training_step(own, lambda: own(images, targets), options.device),
        training_step(other, lambda: other(list(images), shifted), options.device),
    )
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(options.repeats + 1):
        for index, step in enumerate(steps):
            seconds = step()
            if repeat:  # the first turn warms up
                times[index].append(seconds)
    own_time, other_time = (statistics.median(part) for part in times)
    ratios = [a / b for a, b in zip(*times, strict=True)]
    print(
        f"{name:<12} rfla {own_time:.3f} s  torchvision {other_time:.3f} s  "
        f"ratio {own_time / other_time:.3f}"
        f"  (paired: {min(ratios):.2f} to {max(ratios):.2f}, "
        f"median {statistics.median(ratios):.3f})"
    )


def main() -> None:
    """Compare both pairs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=["fcos", "faster_rcnn"])
    options = parser.parse_args()
    torch.manual_seed(0)
    print(
        f"{options.size} px, batch {options.batch}, {BOXES} boxes an image, {options.device}, "
        f"torch {torch.__version__}"
    )
    for name in options.models:
        compare(name, options)


if __name__ == "__main__":
    main()
