"""Detectors of other libraries beside ours: the same images, input size, time and protocol.

    python benchmarks/peers.py torchvision_fcos --data ../shared/data/nuclei3 --imgsz 128 \
        --seconds 300 --out runs/peers
    python benchmarks/peers.py torchvision_faster_rcnn ...
    python benchmarks/peers.py ultralytics --model yolo26n-p2.yaml --python PYTHON ...
    python benchmarks/peers.py libreyolo --model yolo9_p2-t --python PYTHON ...

All start from random weights. Torchvision's models get everything that ours get: loader,
augmentation, AdamW with a cosine, weight average, ResNet-18, a pyramid from stride 4 and, for
Faster R-CNN, anchors from 4 px; what differs is theirs. Ultralytics and LibreYOLO train by their
own interfaces with their defaults, in environments of their own (`pip install ultralytics`, `pip
install libreyolo`; their code never enters here).
The number of epochs is what fits into `--seconds`: of CPU time on a CPU, by the clock on a GPU. The
last weights are judged on the test split, and `record.json` is that of `ablation.py`, which
tabulates them as a variant.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from studies import Job, write_record
from torch import Tensor, nn

from rfla.cfg import load_config
from rfla.data import load_data_spec, load_index
from rfla.engine.build import build_run, build_state
from rfla.engine.distributed import World
from rfla.engine.inference import Inference, detect, judge, protocol_of
from rfla.engine.loaders import batches_of, evaluation_loader
from rfla.engine.step import TrainStep
from rfla.metrics import evaluate_boxes, ground_truth
from rfla.metrics.detection_files import read_detections
from rfla.models.detector import StepLosses

PROBE = 20  # steps that tell how long an epoch takes
SPLIT = "test"


class TorchvisionPeer(nn.Module):
    """A torchvision detector under the interface of ours: the same inputs, losses and outputs."""

    def __init__(self, net: nn.Module, first_class: int) -> None:
        super().__init__()
        self.net, self.first_class = net, first_class

    def forward(
        self,
        images: Tensor,
        targets: Sequence[dict[str, Tensor]] | None = None,
        *,
        image_sizes: Sequence[tuple[int, int]],
        with_counts: bool = False,
    ) -> Any:
        """(B, 3, H, W) normalised images; losses with targets, detections without."""
        cut = [image[:, :h, :w] for image, (h, w) in zip(images, image_sizes, strict=True)]
        if targets is None:
            found = self.net(cut)
            return [{**one, "labels": one["labels"] - self.first_class} for one in found]
        moved = [
            {"boxes": one["boxes"], "labels": one["labels"] + self.first_class} for one in targets
        ]
        boxes = torch.tensor(float(sum(len(one["boxes"]) for one in targets)), device=images.device)
        losses = self.net(cut, moved)
        return StepLosses(losses, {"positives": boxes, "boxes": boxes})


def torchvision_peer(name: str, classes: int, imgsz: int) -> TorchvisionPeer:
    """FCOS on P2 to P6, or Faster R-CNN with anchors of 4 to 64 px on them, with ResNet-18."""
    from torchvision.models import resnet18
    from torchvision.models.detection import FCOS, FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor

    trunk = _resnet_fpn_extractor(resnet18(weights=None), 5)  # P2 to P5 and a pooled P6, 256 wide
    shared = {"min_size": imgsz, "max_size": imgsz, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    sides = tuple((side,) for side in (4, 8, 16, 32, 64))
    if name == "torchvision_fcos":
        points = AnchorGenerator(sides, ((1.0,),) * 5)
        limits = {"score_thresh": 0.02, "detections_per_img": 1500}
        return TorchvisionPeer(FCOS(trunk, classes, anchor_generator=points, **shared, **limits), 0)
    anchors = AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * 5)
    limits = {"box_score_thresh": 0.02, "box_detections_per_img": 1500}
    net = FasterRCNN(trunk, classes + 1, rpn_anchor_generator=anchors, **shared, **limits)
    return TorchvisionPeer(net, 1)


def train_torchvision(args: argparse.Namespace) -> dict[str, Any]:
    """Train for `--seconds`; return figures, epochs and seconds."""
    clock = time.process_time if args.device == "cpu" else time.perf_counter

    def start(epochs: int) -> tuple[Any, TrainStep]:
        cfg = load_config(
            {
                "model": "fcos_p2",
                "backbone": "resnet18",
                "recipe": "scratch",
                "aug.mosaic": 0.0,  # as RFD in the tables of docs/ablations.md
                "aug.zoom": 0.5,
                "data": str(args.data),
                "imgsz": args.imgsz,
                "batch": 4,
                "epochs": epochs,
                "warmup": "linear",
                "workers": 0,
                "cache": "ram",
                "val": False,
                "device": args.device,
                "seed": args.seed,
            },
            mode="train",
        )
        parts = build_run(cfg, World(), torch.device(args.device))
        net = torchvision_peer(args.peer, len(parts.names), args.imgsz).to(args.device)
        parts.state = build_state(net, cfg, parts.device, parts.dtype)
        config = parts.model_config.normalize
        return parts, TrainStep(net, parts.state, parts.schedule, config, parts.device, parts.dtype)

    def run(parts: Any, step: TrainStep, epochs: int, most: float = float("inf")) -> float:
        began, taken = clock(), 0
        parts.state.net.train()
        for epoch in range(epochs):
            parts.sampler.set_epoch(epoch)
            for batch in batches_of(parts.train_loader):
                step.forward_backward(batch, parts.cfg, 1.0, is_last=True)
                step.update(parts.cfg.clip_grad)
                taken += 1
                if taken == most:
                    return (clock() - began) / taken
        return clock() - began

    parts, step = start(epochs=1)
    an_epoch = run(parts, step, 1, PROBE) * parts.batches_per_epoch
    parts.close()
    epochs = max(1, round(args.seconds / an_epoch))
    parts, step = start(epochs)
    seconds = run(parts, step, epochs)
    parts.close()

    net = parts.state.ema.net if parts.state.ema else parts.state.net
    spec = load_data_spec(str(args.data))
    index = load_index(spec, SPLIT)
    loader = evaluation_loader(parts.cfg, index, World(), parts.device)
    inference = Inference(net, parts.model_config.normalize, parts.device, parts.dtype)
    found, _ = detect(inference, loader, index)
    figures = judge(index, found, parts.protocol).metrics.figures
    return {"figures": figures, "epochs": epochs, "seconds": seconds}


def train_elsewhere(args: argparse.Namespace) -> dict[str, Any]:
    """Train by a library's own interface, write its detections as COCO JSON, judge them by ours."""
    out = args.out.resolve()
    rfla = [sys.executable, "-m", "rfla", "convert", "format=coco", "to=yolo", "exist_ok=true"]
    subprocess.run([*rfla, f"source={args.data}", f"out={out / 'data'}"], check=True)
    spec = load_data_spec(str(args.data))
    index = load_index(spec, SPLIT)

    def run(epochs: int, name: str) -> float:
        """CPU seconds of a training, or seconds by the clock on a GPU."""
        given = {"model": args.model, "data": str(out / "data" / "data.yaml"), "epochs": epochs}
        given |= {"imgsz": args.imgsz, "seed": args.seed, "name": name, "project": str(out)}
        given |= {"device": args.device, "images": [str(path) for path in index.paths]}
        script = Path(__file__).with_name(f"peers_{args.peer}.py")
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([args.python, str(script), json.dumps(given)], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if args.device != "cpu":
            return time.perf_counter() - began
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Two lengths, so that what starting and predicting cost is not counted as an epoch.
    one, three = run(1, "probe1"), run(3, "probe3")
    epochs = max(1, round(args.seconds / max((three - one) / 2, 1e-3)))
    seconds = run(epochs, "train")
    truth = ground_truth(index)
    protocol = protocol_of(load_config({"data": str(args.data)}), spec)
    found = read_detections(out / "train" / "detections.json", truth)
    figures = evaluate_boxes(truth, found, protocol=protocol).figures
    return {"figures": figures, "epochs": epochs, "seconds": seconds}


PEERS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "torchvision_fcos": train_torchvision,
    "torchvision_faster_rcnn": train_torchvision,
    "ultralytics": train_elsewhere,
    "libreyolo": train_elsewhere,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--imgsz", type=int, default=128)
    parser.add_argument("--seconds", type=float, required=True, help="of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--out", type=Path, required=True, help="that of ablation.py: OUT/DATA/PEER"
    )
    parser.add_argument("--model", help="of the library: yolo26n-p2.yaml, yolo9_p2-t")
    parser.add_argument("--python", default="python", help="one that has the library")
    args = parser.parse_args()
    torch.set_num_threads(1)
    name = args.peer if args.peer.startswith("torchvision") else args.model.removesuffix(".yaml")
    args.out = args.out / Job(args.data.name, name, args.seed, {}).place
    args.out.mkdir(parents=True, exist_ok=True)
    result = PEERS[args.peer](args)
    record = {
        "data": args.data.name,
        "variant": name,
        "seed": args.seed,
        "settings": {"epochs": result["epochs"], "imgsz": args.imgsz},
        "seconds": round(result["seconds"], 1),
        "resumed": False,
        "figures": result["figures"],
        "device": torch.cuda.get_device_name() if args.device != "cpu" else "one thread of a CPU",
        "torch": torch.__version__,
    }
    write_record(args.out, record)
    print(f"{name}: {result['epochs']} epochs, {result['seconds']:.0f} s, {result['figures']}")


if __name__ == "__main__":
    main()
