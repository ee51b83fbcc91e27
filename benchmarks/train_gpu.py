"""Training throughput on a GPU: images/s, peak memory and model-FLOP utilisation of each zoo model.

    python benchmarks/train_gpu.py   # all models, 800 px, AMP, eager and compiled; 10 minutes
    python benchmarks/train_gpu.py --models fcos fcos_p2 --batch 8
    python benchmarks/train_gpu.py --device cpu --imgsz 64 --batch 1 --steps 1 --models fcos

Torchvision's FCOS and Faster R-CNN run beside them with the same images, batch, precision, frozen
norms and optimiser. FLOPs are counted by torch's flop counter (forward and backward of convolutions
and matrix products); the utilisation is their rate over the rate of a large bfloat16 matrix product
measured on the same device in the same call. What matters most comes first: `fcos` and `fcos_p2`
eager, torchvision's, compiled, from the real loader; then the other models. A part that would not
fit into `--seconds`, by the longest part of its kind so far, is left out and named. The result is
printed as Markdown, and written as JSON after every part.
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rfla.engine.model_source import compile_parts
from rfla.models import build_detector

CLASSES, BOXES = 8, 60
MODELS = (
    "fcos",
    "fcos_p2",
    "rfd",
    "retinanet",
    "faster_rcnn",
    "autoassign",
    "cascade_rcnn",
    "detectors",
)
# models that are also measured compiled and from the real loader before the others have their turn
FIRST = 2
SECONDS = {
    "eager": 15.0,
    "real loader": 30.0,
    "compiled": 100.0,
}  # guesses of a part, until one has been seen
Step = Callable[[Tensor, list[dict[str, Tensor]]], dict[str, Tensor]]


@dataclass
class Row:
    """One line of the result."""

    model: str
    mode: str
    images_per_s: float
    peak_gb: float
    gflop_per_image: float
    utilisation: float | None


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device) -> float:
    """FLOP/s of a bfloat16 product of two square matrices, the best of five."""
    side = 8192 if device.type == "cuda" else 512
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(6):
        synchronise(device)
        start = time.perf_counter()
        a @ a
        synchronise(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def synthetic(
    batch: int, imgsz: int, device: torch.device
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Noise images (B, 3, S, S) and targets with 60 boxes of 6 to 24 px each."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, imgsz, imgsz, generator=generator).to(device)
    targets = []
    for _ in range(batch):
        corners = torch.rand(BOXES, 2, generator=generator) * (imgsz - 26)
        sides = 6 + 18 * torch.rand(BOXES, 2, generator=generator)
        labels = torch.randint(CLASSES, (BOXES,), generator=generator)
        target = {
            "boxes": torch.cat([corners, corners + sides], dim=1),
            "labels": labels,
            "ignore": torch.zeros(0, 4),
        }
        targets.append({key: value.to(device) for key, value in target.items()})
    return images, targets


def real(
    batch: int, imgsz: int, device: torch.device, folder: Path
) -> Iterator[tuple[Tensor, list[dict[str, Tensor]]]]:
    """Batches that are read, decoded, augmented and copied as in a training run, without end."""
    from rfla.cfg import load_config
    from rfla.data import load_data_spec, load_index
    from rfla.engine.distributed import World
    from rfla.engine.inference import prepare_images
    from rfla.engine.loaders import training_loader

    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    rng = np.random.default_rng(0)
    for number in range(1024):  # an epoch in which the workers are busy
        picture = folder / "images" / f"{number}.jpg"
        if number < 64:
            small = rng.integers(0, 255, (imgsz // 4, imgsz // 4, 3), np.uint8)
            cv2.imwrite(str(picture), cv2.resize(small, (imgsz, imgsz)))
        else:
            picture.hardlink_to(folder / "images" / f"{number % 64}.jpg")
        rows = [
            f"{rng.integers(CLASSES)} {x:.4f} {y:.4f} 0.02 0.02"
            for x, y in rng.uniform(0.05, 0.95, (BOXES, 2))
        ]
        (folder / "labels" / f"{number}.txt").write_text("\n".join(rows))
    names = ", ".join(f"c{i}" for i in range(CLASSES))
    (folder / "data.yaml").write_text(f"train: images\nval: images\nnames: [{names}]\n")
    cfg = load_config(
        {
            "model": "fcos",
            "batch": batch,
            "imgsz": imgsz,
            "workers": 12 if device.type == "cuda" else 0,
        }
    )
    index = load_index(load_data_spec(str(folder / "data.yaml")), "train", for_training=True)
    loader, sampler = training_loader(cfg, index, World(), device)
    epoch = 0
    while True:
        sampler.set_epoch(epoch)
        for loaded in loader:
            moved = loaded.to(device, non_blocking=True)
            inputs = prepare_images(moved.images, moved.image_sizes, cfg.normalize)
            yield inputs, moved.targets
        epoch += 1


def torchvision_models(imgsz: int) -> dict[str, nn.Module]:
    """Torchvision's FCOS (P3 to P7) and Faster R-CNN (P2 to P6): ResNet-50, frozen norms."""
    from torchvision.models import resnet50
    from torchvision.models.detection import FCOS, FasterRCNN
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7
    from torchvision.ops.misc import FrozenBatchNorm2d

    def trunk() -> nn.Module:
        return resnet50(weights=None, norm_layer=FrozenBatchNorm2d)

    p3 = _resnet_fpn_extractor(
        trunk(), 3, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)
    )
    sizes = {"min_size": imgsz, "max_size": imgsz}
    return {
        "torchvision FCOS": FCOS(p3, CLASSES, **sizes),
        "torchvision Faster R-CNN": FasterRCNN(
            _resnet_fpn_extractor(trunk(), 3), CLASSES + 1, **sizes
        ),
    }


def as_step(net: nn.Module, name: str) -> Step:
    """Call a network the way its library does."""
    if not name.startswith("torchvision"):
        return net
    shift = 1 if "Faster" in name else 0

    def step(images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        boxes = [
            {"boxes": target["boxes"], "labels": target["labels"] + shift} for target in targets
        ]
        losses: dict[str, Tensor] = net(list(images), boxes)
        return losses

    return step


def measure(
    net: nn.Module,
    step: Step,
    batches: Iterator[tuple[Tensor, list[dict[str, Tensor]]]],
    device: torch.device,
    steps: int,
    count: bool = True,
) -> tuple[float, float, float]:
    """Seconds, peak GB, FLOPs (0 without `count`) of a step in bfloat16 with clipping and SGD."""
    net.train()
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=1e-4, momentum=0.9, fused=device.type == "cuda")

    def once() -> None:
        images, targets = next(batches)
        with torch.autocast(device.type, torch.bfloat16):
            losses = step(images, targets)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(trainable, 35.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    once()  # memory of the optimiser, choice of kernels, compilation
    counter = FlopCounterMode(display=False)
    with counter if count else contextlib.nullcontext():
        once()
    once()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    synchronise(device)
    start = time.perf_counter()
    for _ in range(steps):
        once()
    synchronise(device)
    seconds = (time.perf_counter() - start) / steps
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    return seconds, peak, float(counter.get_total_flops()) if count else 0.0


def jobs_of(models: list[str]) -> list[tuple[str, str]]:
    """Parts of the benchmark, (model, mode), in the order in which they are worth having."""
    theirs = [("torchvision FCOS", "eager"), ("torchvision Faster R-CNN", "eager")]
    first, others = models[:FIRST], models[FIRST:]
    jobs = [(name, "eager") for name in first] + theirs + [(name, "compiled") for name in first]
    jobs += [(name, "real loader") for name in first]
    return jobs + [(name, "eager") for name in others] + [(name, "compiled") for name in others]


def part(
    name: str, mode: str, options: argparse.Namespace, device: torch.device
) -> tuple[float, float, float]:
    """Build one network, train it for some steps, and let it go: what `measure` returns."""
    with contextlib.ExitStack() as stack:
        if name.startswith("torchvision"):
            net = torchvision_models(options.imgsz)[name].to(device)
        else:
            net = build_detector(name, CLASSES).to(device)
        net = net.to(memory_format=torch.channels_last)
        batches: Iterator[Any] = repeat(synthetic(options.batch, options.imgsz, device))
        if mode == "real loader":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            batches = real(options.batch, options.imgsz, device, folder)
        if mode == "compiled":
            compile_parts(net)
        # The counter is a mode that compiled parts would be compiled for once more; it does not see
        # into them either.
        return measure(
            net, as_step(net, name), batches, device, options.steps, count=mode != "compiled"
        )


def run(options: argparse.Namespace) -> dict[str, Any]:
    device = torch.device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    began, rate = time.perf_counter(), matrix_rate(device)
    label = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    result: dict[str, Any] = {"device": label, "torch": torch.__version__, "imgsz": options.imgsz}
    result |= {"batch": options.batch, "bf16_tflops": rate / 1e12, "rows": [], "left_out": []}
    flops: dict[str, float] = {}
    longest = dict(SECONDS)
    seen: set[str] = set()
    for name, mode in jobs_of(list(options.models)):
        start = time.perf_counter()
        if start - began + longest[mode] > options.seconds:
            result["left_out"].append(f"{name} {mode}")
            continue
        try:
            seconds, peak, counted = part(name, mode, options, device)
        except torch.OutOfMemoryError:
            result["left_out"].append(f"{name} {mode} (out of memory)")
            continue
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()
        took = time.perf_counter() - start
        longest[mode] = max(longest[mode], took) if mode in seen else took
        seen.add(mode)
        flops[name] = flops.get(name) or counted
        share = flops[name] / seconds / rate if device.type == "cuda" and flops[name] else None
        gflop = flops[name] / options.batch / 1e9
        result["rows"].append(asdict(Row(name, mode, options.batch / seconds, peak, gflop, share)))
        Path(options.out).write_text(json.dumps(result, indent=1))
        print(f"{name}, {mode}: {options.batch / seconds:.1f} images/s ({took:.0f} s)", flush=True)
    Path(options.out).write_text(json.dumps(result, indent=1))
    return result


def markdown(result: dict[str, Any]) -> str:
    lines = [
        f"{result['device']}, torch {result['torch']}, {result['imgsz']} px, "
        f"batch {result['batch']}, "
        f"bfloat16 products at {result['bf16_tflops']:.0f} TFLOP/s",
        "",
        "| model | mode | images/s | peak GB | GFLOP/image | utilisation |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        share = f"{row['utilisation']:.0%}" if row["utilisation"] is not None else "-"
        lines.append(
            f"| {row['model']} | {row['mode']} | {row['images_per_s']:.1f} | {row['peak_gb']:.1f} "
            f"| {row['gflop_per_image']:.0f} | {share} |"
        )
    speed = {row["model"]: row["images_per_s"] for row in result["rows"] if row["mode"] == "eager"}
    if {"fcos", "torchvision FCOS"} <= speed.keys():
        lines += [
            "",
            f"fcos over torchvision's FCOS, eager: {speed['fcos'] / speed['torchvision FCOS']:.2f}",
        ]
    if result["left_out"]:
        lines += ["", "Left out: " + ", ".join(result["left_out"])]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="zoo names")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--imgsz", type=int, default=800, help="px, a multiple of 32")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20, help="measured steps of each part")
    parser.add_argument("--seconds", type=float, default=540, help="time for all parts")
    parser.add_argument("--out", default="train_gpu.json", help="where the figures are written")
    options = parser.parse_args(arguments)
    result = run(options)
    print(markdown(result))
    return result


if __name__ == "__main__":
    main()
