"""Checks of `gpu_checks.py` that build a network: training steps and detections on the device.

Shapes: B images, (H, W) px.
"""

import copy
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rfla.cfg.layer_files import model_names
from rfla.engine.device import precision_holds
from rfla.models import build_detector
from rfla.ops.group_norm import group_norm_relu

DETECTORS = model_names()
NO_WAITS = ("fcos", "fcos_p2", "rfd")  # their training step must never make the host wait
CLASSES, BATCH = 4, 2
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
        torch.cuda.synchronize()
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
    """Detections on the device in float32 are those of float64, but for what the CPU loses too.

    Rounding moves boxes and scores of a random network, whose class layers are drawn wide, so that
    its scores are not all alike. So the device may miss 0.2 % of the boxes more than float32 on the
    CPU does (0.01 px, 1e-4 in score); those next to the last that is kept may be others.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    figures: Figures = {}
    for name in DETECTORS:
        net = network(name, "cpu", **{"test.score_thr": 0.0, "backbone.norm_eval": False})
        images, targets = batch_of("cpu", size)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # statistics of these images, or DetectoRS overflows
            elif isinstance(module, nn.Conv2d) and float(module.weight.detach().std()) < 0.02:
                nn.init.normal_(module.weight, std=0.05)
        net(images, targets)
        net.eval()
        with torch.no_grad():
            exact = copy.deepcopy(net).double()(images.double())
            here = share_found(exact, net(images))
            there = share_found(exact, net.to(device)(images.to(device)))
        boxes = sum(len(one["boxes"]) for one in exact)
        figures[name] = {"boxes": boxes, "cpu": round(here, 5), "device": round(there, 5)}
    held = [one["boxes"] and one["device"] >= one["cpu"] - 0.002 for one in figures.values()]
    assert all(held), json.dumps(figures)
    return figures


def norm(device: str, size: int) -> Figures:
    """Group norm of half precision is float32's but for rounding; its speed beside torch's own.

    Seconds are of forward and backward of a map of the P2 level of 800 px, 16 images of 256
    channels, of which a device that is no GPU takes a corner.
    """
    figures: Figures = {}
    for shape, groups in (((2, 64, 9, 7), 16), ((3, 96, 64, 64), 32), ((70_000, 8, 1, 2), 4)):
        for dtype in (torch.bfloat16, torch.float16):
            x, slope = torch.randn(2, *shape, device=device).to(dtype)
            x = x.contiguous(memory_format=torch.channels_last)
            gradients = {}
            for kind in (dtype, torch.float32):
                leaf = x.detach().to(kind, copy=True).requires_grad_()
                weight = torch.linspace(0.5, 1.5, shape[1], device=device, requires_grad=True)
                out = group_norm_relu(leaf, groups, weight, weight, 1e-5)
                out.backward(slope.to(out.dtype))
                gradients[kind] = [leaf.grad.float(), weight.grad]
            pairs = zip(gradients[dtype], gradients[torch.float32], strict=True)
            apart = max(float((one - other).norm() / other.norm()) for one, other in pairs)
            assert apart < 0.01, f"{shape} {dtype}: gradients {apart:.2%} apart"
    shape = (16, 256, 200, 200) if device == "cuda" else (1, 256, 20, 20)
    x = torch.randn(shape, device=device).to(torch.bfloat16, memory_format=torch.channels_last)
    weight = torch.ones(256, device=device, requires_grad=True)
    for name, run in (("ours", group_norm_relu), ("torch's", torch_group_norm)):
        for repeat in range(6):  # the first compiles
            if repeat == 1:
                started = seconds_on(device)
            leaf = x.detach().requires_grad_()
            with torch.autocast(device, torch.bfloat16):
                out = run(leaf, 32, weight, weight, 1e-5).to(torch.bfloat16)
            out.backward(x)
        figures[name] = f"{1e3 * (seconds_on(device) - started) / 5:.2f} ms"
    return figures


def torch_group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """What `group_norm_relu` takes the place of."""
    return nn.functional.group_norm(x, groups, weight, bias, eps).relu_()


def seconds_on(device: str) -> float:
    """Seconds by the clock, once the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def share_found(exact: list[dict[str, Tensor]], found: list[dict[str, Tensor]]) -> float:
    """Share of the boxes of one result that are in another, but for those of the least score."""
    same, count = 0, 0
    for own, other in zip(exact, found, strict=True):
        there = {key: value.to(own["boxes"]) for key, value in other.items()}
        sure = own["scores"] > own["scores"].min() + 1e-4
        alike = (
            (torch.cdist(own["boxes"], there["boxes"], p=torch.inf) < 0.01)
            & ((own["scores"][:, None] - there["scores"]).abs() < 1e-4)
            & (own["labels"][:, None] == there["labels"])
        ).any(dim=1)
        same, count = same + int(alike[sure].sum()), count + int(sure.sum())
    return same / max(count, 1)
