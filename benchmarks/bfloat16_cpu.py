"""What bfloat16 (`amp=bf16`) saves in a training step on a CPU, paired in one process.

    python benchmarks/bfloat16_cpu.py [--repeats 7]

For each network: float32, bfloat16, and bfloat16 with torch's own group norm in place of ours,
which computes in float32. They take turns, and the ratios are medians over the turns. Seconds are
those of the process: set OMP_NUM_THREADS=1, as for the trainings of `ablation.py`.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from training_step import make_batch

from rfla.engine.device import autocast, cpu_has_bfloat16, on_device
from rfla.models import build_detector
from rfla.models.blocks import GroupNorm

BATCH = 4
NETWORKS = (("fcos_p2", 128, 48), ("rfd", 128, 48), ("fcos_p2", 256, 96), ("rfd", 256, 96))


def training_step(
    name: str, side: int, width: int, dtype: torch.dtype | None, own_norm: bool
) -> Callable[[], float]:
    """One step of SGD of a ResNet-18 detector, as a function that returns its seconds."""
    torch.manual_seed(0)
    settings = {
        "backbone.name": "resnet18",
        "neck.width": width,
        "head.width": width,
        "head.depth": 2,
        "head.norm": "gn",
    }
    device = torch.device("cpu")
    net = on_device(build_detector(name, 2, "rfla", settings), device, dtype).train()
    if not own_norm:
        for module in net.modules():
            if isinstance(module, GroupNorm):
                module.__class__ = nn.GroupNorm
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)
    images, targets = make_batch(BATCH, side, "cpu")
    for target in targets:
        target["labels"] %= 2

    def step() -> float:
        begin = time.process_time()
        with autocast(device, dtype):
            losses = net(images, targets)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(sum(losses.values()))
        optimizer.step()
        return time.process_time() - begin

    return step


def compare(name: str, side: int, width: int, repeats: int) -> None:
    """Print how many times as fast as float32 each form is."""
    forms = ((None, True), (torch.bfloat16, True), (torch.bfloat16, False))
    steps = [training_step(name, side, width, *form) for form in forms]
    turns = [[step() for step in steps] for _ in range(repeats + 1)][1:]  # the first warms up
    ours, torchs = (statistics.median(turn[0] / turn[form] for turn in turns) for form in (1, 2))
    norm = statistics.median(turn[2] / turn[1] for turn in turns)
    print(
        f"{name:<8} {side} px, {width} wide: bfloat16 {ours:.2f} times as fast as float32, "
        f"{torchs:.2f} with torch's group norm ({norm:.2f} times between the two)",
        flush=True,
    )


def main() -> None:
    """Compare every network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    if not cpu_has_bfloat16():
        parser.exit(1, "this processor has no bfloat16 instructions\n")
    for network in NETWORKS:
        compare(*network, options.repeats)


if __name__ == "__main__":
    main()
