"""Checks of what CUDA may break, one function for each; `gpu_truth.py` runs them in processes.

    python benchmarks/gpu_checks.py steps --device cuda
    python benchmarks/gpu_checks.py steps --device cpu     # the same code, on a machine without one

A check returns figures for the report and raises `AssertionError` where something does not hold.
Those of single steps are in `gpu_steps.py`; here are memory, whole commands, processes and speed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from gpu_steps import (
    Figures,
    batch_of,
    detections,
    deterministic,
    nan,
    network,
    norm,
    overflow,
    steps,
    waits,
)
from torch import nn

SIZE = 320


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
    from rfla.engine.model_source import compile_parts

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
        norm,
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
