"""Peak memory and time of a training step by the number of boxes in an image.

    OMP_NUM_THREADS=1 python benchmarks/boxes_per_image.py
    OMP_NUM_THREADS=1 python benchmarks/boxes_per_image.py --models fcos_p2 --boxes 10 3000

Each case runs in a process of its own: one step warms up, the others are timed by the CPU time of
the process (by the clock on a GPU); the median counts. Memory is the largest resident set of that
process, less what it held before the first step (on a GPU, the largest allocation). The network,
the image size and the batch stay the same; the boxes are random, 2 to 32 px.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

SETTINGS = {"backbone.name": "resnet18"}


def case(model: str, size: int, boxes: int, steps: int, device: str) -> dict[str, float]:
    """Seconds of a step and MB of memory, measured in this process."""
    from rfla.models import build_detector

    torch.manual_seed(0)
    net = build_detector(model, 8, settings=SETTINGS).to(device).train()
    optimizer = torch.optim.SGD(
        [p for p in net.parameters() if p.requires_grad], lr=1e-4, momentum=0.9
    )
    images = torch.randn(1, 3, size, size).to(device)
    corner, side = torch.rand(boxes, 2) * (size - 34), 2 + 30 * torch.rand(boxes, 2)
    target = {
        "boxes": torch.cat([corner, corner + side], dim=1),
        "labels": torch.randint(8, (boxes,)),
    }
    targets = [
        {key: value.to(device) for key, value in (target | {"ignore": torch.zeros(0, 4)}).items()}
    ]
    before = start_of_memory()
    clock, times = time.perf_counter if device == "cuda" else time.process_time, []
    for _ in range(steps + 1):
        begin = clock()
        torch.stack(list(net(images, targets).values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - begin)
    memory = (
        torch.cuda.max_memory_allocated() / 2**20
        if device == "cuda"
        else resident("VmHWM") - before
    )
    return {"seconds": statistics.median(times[1:]), "mb": memory}


def start_of_memory() -> float:
    """Forget the largest resident set so far (of the imports), and return the present one in MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def resident(name: str) -> float:
    """A figure of this process in MB: VmRSS the resident set, VmHWM the largest one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def main(arguments: list[str] | None = None) -> list[dict[str, float | str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["fcos_p2", "faster_rcnn"])
    parser.add_argument("--size", type=int, default=320, help="px")
    parser.add_argument("--boxes", type=int, nargs="+", default=[10, 100, 1000, 3000])
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each case")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case:
        model, boxes = options.case.split(",")
        print(json.dumps(case(model, options.size, int(boxes), options.steps, options.device)))
        return []
    print(
        "| model | boxes | step | times the first | memory of a step | times the first |\n"
        "|---|---|---|---|---|---|"
    )
    rows: list[dict[str, float | str]] = []
    common = [
        "--size",
        str(options.size),
        "--steps",
        str(options.steps),
        "--device",
        options.device,
    ]
    for model in options.models:
        first: dict[str, float] = {}
        for boxes in options.boxes:
            command = [sys.executable, __file__, *common, "--case", f"{model},{boxes}"]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            first = first or found
            slower, larger = found["seconds"] / first["seconds"], found["mb"] / first["mb"]
            print(f"| {model} | {boxes:,} | {found['seconds']:.2f} s | {slower:.2f} "
                  f"| {found['mb']:.0f} MB | {larger:.2f} |", flush=True)  # fmt: skip
            rows.append({"model": model, "boxes": boxes, **found})
    return rows


if __name__ == "__main__":
    main()
