"""Checks of what CUDA may break, one function for each; `gpu_truth.py` runs them in processes.

    python benchmarks/gpu_checks.py steps --device cuda
    python benchmarks/gpu_checks.py steps --device cpu     # the same code, on a machine without one

A check returns figures for the report and raises `AssertionError` where something does not hold.

Shapes: B images, (H, W) px.
"""

import argparse
import copy
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rfla.engine.device import precision_holds
from rfla.models import build_detector

DETECTORS = (
    "fcos_p2",
    "rfd",
    "retinanet",
    "autoassign",
    "faster_rcnn",
    "cascade_rcnn",
    "detectors",
    "fcos",
)
NO_WAITS = ("fcos", "fcos_p2", "rfd")  # their training step must never make the host wait
CLASSES, SIZE, BATCH = 4, 320, 2
Figures = dict[str, Any]


def batch_of(device: str, size: int, boxes: int = 30) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """BATCH noise images with bright boxes of 6 to 24 px, and their targets."""
    generator = torch.Generator().manual_seed(0)
    images = 0.3 * torch.randn(BATCH, 3, size, size, generator=generator)
    targets = []
    for image in images:
        corners = torch.randint(0, size - 24, (boxes, 2), generator=generator).float()
        sides = torch.randint(6, 25, (boxes, 2), generator=generator).float()
        truth = torch.cat([corners, corners + sides], dim=1)
        for x1, y1, x2, y2 in truth.int().tolist():
            image[:, y1:y2, x1:x2] += 2
        labels = torch.randint(CLASSES, (boxes,), generator=generator)
        target = {"boxes": truth, "labels": labels, "ignore": torch.zeros(0, 4)}
        targets.append({key: value.to(device) for key, value in target.items()})
    return images.to(device), targets


def network(name: str, device: str, **settings: Any) -> nn.Module:
    """A detector with a small backbone that learns from random weights."""
    torch.manual_seed(0)
    small = {"backbone": "resnet18", "backbone.frozen_stages": -1, "neck.width": 64} | settings
    net = build_detector(name, CLASSES, settings=small).to(device)
    return net.to(memory_format=torch.channels_last).train()


def losses_of_steps(
    name: str, device: str, dtype: torch.dtype | None, size: int, steps: int = 3
) -> list[float]:
    """Total loss of each of some training steps, as a run takes them."""
    net = network(name, device)
    images, targets = batch_of(device, size)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(
        device, init_scale=1024.0, enabled=dtype == torch.float16 and device == "cuda"
    )
    seen = []
    for _ in range(steps):
        torch.manual_seed(1)  # the same samples in every precision
        with torch.autocast(device, dtype or torch.bfloat16, enabled=dtype is not None):
            losses = net(images, targets)
        loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        missing = [key for key, p in net.named_parameters() if p.requires_grad and p.grad is None]
        assert not missing, f"{name}: no gradient for {missing[:3]}"
        scaler.step(optimizer)
        scaler.update()
        seen.append(float(loss.detach()))
    return seen


def steps(device: str, size: int) -> Figures:
    """Each detector takes 3 steps in each precision; the first loss is within 2 % of float32's.

    A precision that a training would not take either (`precision_holds`) is left out.

    The first alone starts from the same weights: rounding makes two trainings drift apart, that of
    DetectoRS, whose first loss is in the thousands, by 5 % in two steps.
    """
    halves = [torch.bfloat16] + ([torch.float16] if device == "cuda" else [])
    figures: Figures = {}
    for name in DETECTORS:
        full = losses_of_steps(name, device, None, size)
        figures[name] = {"float32": full}
        for dtype in halves:
            if not precision_holds(network(name, device), torch.device(device), dtype):
                figures[name][str(dtype).removeprefix("torch.")] = "refused: trains in float32"
                continue
            half = losses_of_steps(name, device, dtype, size)
            assert all(map(torch.isfinite, torch.tensor(half))), f"{name} {dtype}: {half}"
            change = abs(half[0] - full[0]) / abs(full[0])
            figures[name][str(dtype).removeprefix("torch.")] = f"{change:.2%}"
            assert change < 0.02, f"{name} {dtype}: {half[0]:.4f} beside {full[0]:.4f}"
    return figures


def overflow(device: str, size: int) -> Figures:
    """A first step in float16 whose gradient overflows leaves weights and momentum as they were.

    Fused SGD allocates its momentum without writing to it, and a skipped step must not use it.
    """
    from rfla.engine.optimizer import build_optimizer, parameter_groups

    net = network("faster_rcnn", device)
    before = copy.deepcopy(net.state_dict())
    groups = parameter_groups(net, lr=1e-3, weight_decay=1e-4)
    optimizer = build_optimizer("sgd", groups, lr=1e-3, momentum=0.9, fused=device == "cuda")
    scaler = torch.amp.GradScaler(device, init_scale=2.0**16, enabled=device == "cuda")
    images, targets = batch_of(device, size)
    for factor in (1e35, 1.0):  # times the scaler's 2**16, more than float32 holds
        loss = sum(net(images, targets).values()) * factor
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(net.parameters(), 35.0)
        if scaler.is_enabled() or bool(norm.isfinite()):
            scaler.step(optimizer)
        scaler.update()
        if factor > 1:
            moved = [
                key
                for key, value in net.named_parameters()
                if not torch.equal(value.detach(), before[key])
            ]
            assert not moved, f"a skipped step moved {moved[:3]}"
    for state in optimizer.state.values():
        buffer = state.get("momentum_buffer")
        assert buffer is None or buffer.isfinite().all(), "momentum is not finite"
    change = max(float((p.detach() - before[key]).abs().max()) for key, p in net.named_parameters())
    assert change < 1, f"weights jumped by {change}"
    return {"largest change of a weight": change}


def deterministic(device: str, size: int) -> Figures:
    """Two equal runs of two deterministic steps end with equal weights; says what torch warns of.

    Not demanded of DetectoRS: torchvision's deformable convolution has no such gradient.
    """
    import warnings

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    figures: Figures = {}
    for name in DETECTORS:
        ends = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                net = network(name, device)
                images, targets = batch_of(device, size)
                optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
                for step in range(2):
                    torch.manual_seed(step)
                    optimizer.zero_grad()
                    sum(net(images, targets).values()).backward()
                    nn.utils.clip_grad_norm_(net.parameters(), 35.0)
                    optimizer.step()
                ends.append([parameter.detach().cpu() for parameter in net.parameters()])
        names = [key for key, _ in net.named_parameters()]
        differ = [key for key, a, b in zip(names, *ends, strict=True) if not torch.equal(a, b)]
        said = sorted({str(each.message).split(" does not")[0][:60] for each in caught})
        figures[name] = {"differ": len(differ), "first": differ[:2], "warned": said}
    wrong = [name for name in DETECTORS if name != "detectors" and figures[name]["differ"]]
    assert not wrong, json.dumps(figures)
    return figures


def nan(device: str, size: int) -> Figures:
    """An image of NaN makes the loss NaN and nothing else: the device still answers."""
    figures: Figures = {}
    for name in ("autoassign", "faster_rcnn", "fcos_p2"):
        net = network(name, device)
        images, targets = batch_of(device, size)
        images[0] = float("nan")
        total = sum(net(images, targets).values())
        figures[name] = f"loss {float(total):.3g}"
        images, targets = batch_of(device, size)
        assert sum(net(images, targets).values()).isfinite() or name != "fcos_p2"
    return figures


@contextmanager
def no_waits(device: str) -> Iterator[None]:
    """Raise where the host waits for the device, on CUDA."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def waits(device: str, size: int) -> Figures:
    """A training step of FCOS never waits; those of the other detectors are counted."""
    figures: Figures = {}
    for name in DETECTORS:
        net = network(name, device)
        images, targets = batch_of(device, size)
        sum(net(images, targets).values()).backward()  # grids and kernels are made once
        if name in NO_WAITS:
            with no_waits(device):
                sum(net(images, targets).values()).backward()
            figures[name] = 0
        elif device == "cuda":
            import warnings

            torch.cuda.set_sync_debug_mode("warn")
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                sum(net(images, targets).values()).backward()
            torch.cuda.set_sync_debug_mode("default")
            figures[name] = sum("synchroniz" in str(each.message) for each in caught)
    return figures


def detections(device: str, size: int) -> Figures:
    """Detections on the device are the CPU's, in float32: 99.9 % within 0.01 px and 1e-4 in score.

    The class layers are drawn wide, so that the scores of a random network are not all alike; those
    next to the last that is kept may be others.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    figures: Figures = {}
    for name in DETECTORS:
        net = network(name, "cpu").eval()
        for module in net.modules():
            if isinstance(module, nn.Conv2d) and float(module.weight.detach().std()) < 0.02:
                nn.init.normal_(module.weight, std=0.1)
        images, _ = batch_of("cpu", size)
        with torch.no_grad():
            here = net(images)
            there = net.to(device)(images.to(device))
        same, count = 0, 0
        for own, other in zip(here, there, strict=True):
            found = {key: value.cpu() for key, value in other.items()}
            sure = own["scores"] > own["scores"].min() + 1e-4
            alike = (
                (torch.cdist(own["boxes"], found["boxes"], p=torch.inf) < 0.01)
                & ((own["scores"][:, None] - found["scores"]).abs() < 1e-4)
                & (own["labels"][:, None] == found["labels"])
            ).any(dim=1)
            same, count = same + int(alike[sure].sum()), count + int(sure.sum())
        figures[name] = {"boxes": count, "same": round(same / count, 5) if count else 1.0}
    assert all(figures[name]["same"] >= 0.999 for name in DETECTORS), json.dumps(figures)
    return figures


def memory(device: str, size: int) -> Figures:
    """`batch=-1` finds a batch that trains, and a run that ran out goes on with halves."""
    from rfla.cfg import load_config
    from rfla.engine.memory import largest_batch, smaller_batches

    tried: list[int] = []

    def fits(count: int) -> bool:
        tried.append(count)
        return count <= 11

    found = largest_batch(fits)
    assert 10 <= found <= 11, f"{found} of 11 that fit"
    cfg = load_config({"model": "fcos_p2", "batch": 8})
    smaller = smaller_batches(cfg, 0, can_change=True)
    assert (smaller.batch, smaller.accumulate) == (4, 2)
    return {"trials": len(tried), "found": found}


def run_command(arguments: list[str], timeout: float, stop_after: str | None = None) -> int:
    """Run `rfla`; with `stop_after`, send SIGTERM once a line holds these words."""
    command = [sys.executable, "-m", "rfla", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    start, output = time.monotonic(), []
    for line in process.stdout:
        output.append(line)
        if stop_after is not None and stop_after in line:
            process.send_signal(signal.SIGTERM)
            stop_after = None
        if time.monotonic() - start > timeout:
            process.kill()
    code = process.wait()
    if code not in (0, 130, 143):
        print("".join(output[-30:]))
    return code


def command(device: str, size: int) -> Figures:
    """The real command: train, stop by SIGTERM after an epoch, resume, validate, predict."""
    base = ["backbone=resnet18", "neck.width=64", "head.width=64", "head.depth=1", "head.norm=gn"]
    figures: Figures = {}
    precisions = ["bf16", "fp16"] if device == "cuda" else ["false"]
    for amp in precisions:
        with tempfile.TemporaryDirectory() as folder:
            run = f"{folder}/run"
            given = [f"project={folder}", "name=run", f"device={device}", f"imgsz={size}"]
            given += ["data=demo", "model=fcos_p2", "epochs=2", "fraction=16", f"amp={amp}"]
            given += ["batch=4", "workers=0", "plots=false", "pretrained=false"]
            first = run_command(["train", *given, *base], 240, stop_after="1/2")
            assert first in (130, 143), f"amp={amp}: SIGTERM ended with {first}"
            assert run_command(["train", f"resume={run}"], 240) == 0
            weights = f"{run}/weights/last.safetensors"
            val = ["val", f"model={weights}", "data=demo", "fraction=8", f"device={device}"]
            assert run_command([*val, f"project={folder}", "plots=false"], 240) == 0
            figures[amp] = "stopped, resumed, validated"
            assert Path(weights).exists()
    return figures


def distributed(device: str, size: int) -> Figures:
    """One process of a world: gather, barrier, and a step of AutoAssign through DDP."""
    import torch.distributed as dist

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29533"}
    dist.init_process_group("nccl" if device == "cuda" else "gloo", rank=0, world_size=1)
    try:
        net = network("autoassign", device)
        wrapped = nn.parallel.DistributedDataParallel(net)
        images, targets = batch_of(device, size)
        step = wrapped(images, targets, with_counts=True)
        torch.stack(list(step.losses.values())).sum().backward()
        sums = torch.stack([value.float() for value in step.counts.values()])
        dist.all_reduce(sums)  # mixed devices would raise here
        dist.barrier()
        return {name: float(value) for name, value in step.counts.items()}
    finally:
        dist.destroy_process_group()


def compiled(device: str, size: int) -> Figures:
    """Three compiled steps of FCOS give the losses of three eager ones, within 1 %."""
    from rfla.engine.build import compile_parts

    seen = {}
    for mode in ("eager", "compiled"):
        net = network("fcos", device)
        images, targets = batch_of(device, size)
        if mode == "compiled":
            compile_parts(net)
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            loss = sum(net(images, targets).values())
            loss.backward()
            optimizer.step()
        seen[mode] = float(loss.detach())
    assert abs(seen["compiled"] / seen["eager"] - 1) < 0.01, str(seen)
    return seen


def prediction(device: str, size: int) -> Figures:
    """Images/s of `fcos_p2` at batch 1 to 64, in the precision of `amp=true`."""
    figures: Figures = {}
    net = network("fcos_p2", device).eval()
    for count in (1, 4, 16, 64) if device == "cuda" else (1, 2):
        images = torch.randn(count, 3, size, size, device=device)
        for timed in (False, True):
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            with (
                torch.inference_mode(),
                torch.autocast(device, torch.bfloat16, enabled=device == "cuda"),
            ):
                for _ in range(5 if timed and device == "cuda" else 1):
                    net(images)
            if device == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
        figures[f"batch {count}"] = round(count * (5 if device == "cuda" else 1) / seconds, 1)
    return figures


CHECKS: dict[str, Callable[[str, int], Figures]] = {
    check.__name__: check
    for check in (
        steps,
        overflow,
        deterministic,
        nan,
        waits,
        detections,
        memory,
        command,
        distributed,
        compiled,
        prediction,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--imgsz", type=int, default=SIZE, help="px, a multiple of 32")
    options = parser.parse_args()
    print(json.dumps(CHECKS[options.check](options.device, options.imgsz)))


if __name__ == "__main__":
    main()
