"""Check and time the hierarchical assigner on a GPU: one call, one JSON object.

    python benchmarks/assigner_gpu.py                 # needs CUDA
    python benchmarks/assigner_gpu.py --device cpu    # the same checks but synchronisation

Checked: no host synchronisation in the common path (torch's sync debug mode raises on one); the
CUDA result equals the CPU's, except where two scores lie within 2 ulp. Timed: 16 images of 500
boxes, as a batch and one by one.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from gpu_steps import no_waits
from torch import Tensor

from rfla.assign import HierarchicalAssigner, PriorGrid, receptive_field_distance

STRIDES, FIELDS = (4, 8, 16, 32, 64), (35, 91, 267, 427, 555)


def make_grid(kind: str, device: str, size: int = 800) -> PriorGrid:
    sizes = [(-(-size // stride), -(-size // stride)) for stride in STRIDES]
    return (PriorGrid.points if kind == "points" else PriorGrid.anchors)(sizes, STRIDES, FIELDS).to(
        device
    )


def make_images(count: int, boxes: int, device: str) -> list[Tensor]:
    images = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        centre = torch.rand(boxes, 2, generator=generator) * 800
        side = torch.exp(torch.rand(boxes, 2, generator=generator) * 3 + 0.7)
        images.append(torch.cat((centre - side / 2, centre + side / 2), dim=1).to(device))
    return images


def milliseconds(call: Callable[[], object], device: str, repeats: int) -> float:
    """Median time of a call, by CUDA events where there is a GPU."""
    times = []
    for _ in range(repeats + 3):
        if device == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end))
        else:
            before = time.process_time()
            call()
            times.append((time.process_time() - before) * 1e3)
    return statistics.median(times[3:])


def unexplained_differences(kind: str, distance: str, device: str) -> tuple[int, int]:
    """Priors that differ from the CPU's result, and how many no tie within 2 ulp explains."""
    assigner, images = HierarchicalAssigner(distance), make_images(4, 300, "cpu")
    grid = make_grid(kind, "cpu")
    here = assigner.batch(grid, images)
    there = assigner.batch(make_grid(kind, device), [boxes.to(device) for boxes in images]).cpu()
    differing = (here != there).nonzero().tolist()
    unexplained = 0
    for image, prior in differing:
        boxes = {int(result[image, prior]) for result in (here, there)} & set(range(300))
        unexplained += not any(
            _near_tie(assigner, grid, images[image][box], prior) for box in boxes
        )
    return len(differing), unexplained


def _near_tie(assigner: HierarchicalAssigner, grid: PriorGrid, box: Tensor, prior: int) -> bool:
    """Whether in some stage a prior scores within 2 ulp of a box's k-th best or the threshold."""
    for stage, fields in enumerate((grid, grid.scaled(assigner.decay))):
        scores = receptive_field_distance(box[None], fields.boxes, assigner.distance)[0]
        limits = [scores.topk(assigner.topk[stage]).values[-1]]
        if assigner.ignore_above is not None:
            limits.append(torch.tensor(assigner.ignore_above))
        bits = scores[prior].view(torch.int32)
        if any(abs(int(bits) - int(limit.view(torch.int32))) <= 2 for limit in limits):
            return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    device, report = args.device, {}
    report["device"] = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    for kind in ("points", "anchors"):
        grid, images = make_grid(kind, device), make_images(16, 500, device)
        assigner, sizes = HierarchicalAssigner(), [(800 - 8 * i, 600 + 8 * i) for i in range(16)]
        assigner.batch(
            grid, images, image_sizes=sizes
        )  # the first call fills the caches of the grid
        with no_waits(device):
            assigner.batch(grid, images)
            assigner.batch(grid, images, image_sizes=sizes)
        together = milliseconds(
            lambda g=grid, i=images, a=assigner: a.batch(g, i), device, args.repeats
        )
        single = milliseconds(
            lambda g=grid, i=images, a=assigner: [a(g, one) for one in i], device, args.repeats
        )
        report[kind] = {"batch_16x500_ms": round(together, 3), "16_calls_ms": round(single, 3)}
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            assigner(grid, make_images(1, 2000, device)[0])
            report[kind]["peak_mib_2000_boxes"] = round(
                (torch.cuda.max_memory_allocated() - before) / 2**20, 1
            )
        for distance in ("kld", "wd", "nwd", "gcd"):
            report[kind][f"{distance}_differing_and_unexplained"] = unexplained_differences(
                kind, distance, device
            )
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
