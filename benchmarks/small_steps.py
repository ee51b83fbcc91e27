"""Training steps of small detectors on a CPU: bfloat16 beside float32, RFD beside FCOS.

    python benchmarks/small_steps.py [--boxes 13] [--repeats 7]

At each size FCOS on P2 and RFD take turns in one process: in float32, in bfloat16 (`amp=bf16`), and
in bfloat16 with torch's own group norm in place of ours, which computes in float32. Ratios are
medians over the turns. Seconds are those of the process: set OMP_NUM_THREADS=1, as for the
trainings of `ablation.py`.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn
from training_step import BOXES, CLASSES, make_batch, training_step

from rfla.engine.device import autocast, cpu_has_bfloat16, on_device
from rfla.models import build_detector
from rfla.models.blocks import GroupNormReLU

CPU = torch.device("cpu")
BATCH = 4
SIZES = ((128, 48), (256, 96))
"""Side of the images, px, and width of the neck and head."""
FORMS = {"float32": (None, True), "bf16": (torch.bfloat16, True), "norm": (torch.bfloat16, False)}
"""Precision, and whether group norm is ours."""
MODELS = ("fcos_p2", "rfd")


class TorchNorm(nn.GroupNorm):
    """Group norm and ReLU by torch alone."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, H, W) to the same."""
        return super().forward(features).relu_()


def small_step(
    name: str, side: int, width: int, boxes: int, dtype: torch.dtype | None, own_norm: bool
) -> Callable[[], float]:
    """One step of SGD of a ResNet-18 detector, as a function that returns its seconds."""
    torch.manual_seed(0)
    head = {"head.width": width, "head.depth": 2, "head.norm": "gn"}
    settings = {"backbone.name": "resnet18", "neck.width": width, **head}
    net = on_device(build_detector(name, CLASSES, "rfla", settings), CPU, dtype).train()
    if not own_norm:
        for module in net.modules():
            if isinstance(module, GroupNormReLU):
                module.__class__ = TorchNorm
    images, targets = make_batch(BATCH, side, "cpu", boxes)

    def losses() -> dict[str, Tensor]:
        with autocast(CPU, dtype):
            found: dict[str, Tensor] = net(images, targets)
        return found

    return training_step(net, losses, "cpu")


def compare(side: int, width: int, boxes: int, repeats: int) -> None:
    """Print how the forms of one size compare."""
    keys = [(name, form) for name in MODELS for form in FORMS]
    steps = {
        (name, form): small_step(name, side, width, boxes, *FORMS[form]) for name, form in keys
    }
    turns = [{key: step() for key, step in steps.items()} for _ in range(repeats + 1)]

    def ratio(above: tuple[str, str], below: tuple[str, str]) -> float:
        return statistics.median(turn[above] / turn[below] for turn in turns[1:])  # first: warm-up

    print(f"{side} px, {width} wide", flush=True)
    for name in MODELS:
        ours, torchs = (ratio((name, "float32"), (name, form)) for form in ("bf16", "norm"))
        print(
            f"  {name:<8} bfloat16 {ours:.2f} times float32's speed, {torchs:.2f} by torch's norm"
        )
    for form in ("float32", "bf16"):
        print(f"  rfd takes {ratio(('rfd', form), ('fcos_p2', form)):.2f} times as long in {form}")


def main() -> None:
    """Compare at every size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", type=int, default=BOXES, help="in each image")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    if not cpu_has_bfloat16():
        parser.exit(1, "this processor has no bfloat16 instructions\n")
    for size in SIZES:
        compare(*size, options.boxes, options.repeats)


if __name__ == "__main__":
    main()
