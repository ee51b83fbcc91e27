"""Train every detector, with both assigners, on four crops of `data=demo` until it fits them.

    python benchmarks/overfit.py   # all, one line each, as in docs/overfit.md
    python benchmarks/overfit.py --models faster_rcnn --assigners rfla --steps 200

A detector that cannot do this has a fault in its targets, losses or decoding. The nets are small
(ResNet-18 from random weights, 32 channels), so the whole takes some minutes on one core. A run
ends at the first AP50 above 0.9.
"""

import argparse
import time

import numpy as np
import torch
from torch import Tensor

from rfla.cfg.layer_files import model_names
from rfla.data import load_data_spec, load_index
from rfla.data.images import read_image
from rfla.metrics import Detections, GroundTruth, evaluate_boxes
from rfla.models import build_detector
from rfla.tools.demo import prepare_demo

SMALL = {
    "backbone": "resnet18",
    "backbone.frozen_stages": -1,
    "backbone.norm_eval": False,
    "backbone.norm_trainable": True,
    "neck.width": 32,
    "head.width": 32,
}
DENSE = {"head.depth": 1, "head.norm": "gn"}
TWO_STAGE = {
    "rpn.samples": 64,
    "rpn.nms_pre": 64,
    "rpn.max_proposals": 64,
    "roi.samples": 64,
    "roi.width": 64,
    "assigner.allowed_border": -1,
}
# The authors' smallest anchor, 8 strides or 32 px, overlaps none of these objects enough to be
# positive.
BASELINE_ANCHORS = {"anchors.scale": 2.0}
TARGET_AP50 = 0.9
MIN_SIDE = 6  # px
Target = dict[str, Tensor]


def crops(size: int, count: int = 4) -> tuple[Tensor, list[Target], tuple[str, ...]]:
    """The first `count` demo images with a window of 3 to 12 whole objects of at least 6 px."""
    prepare_demo("demo")
    index = load_index(load_data_spec("demo"), "train")
    images, targets = [], []
    for row, path in enumerate(index.paths):
        boxes = index.boxes[index.box_start[row] : index.box_start[row + 1]]
        labels = index.labels[index.box_start[row] : index.box_start[row + 1]]
        window = find_window(boxes, tuple(index.image_hw[row]), size)
        if window is None:
            continue
        x, y, inside = window
        pixels = read_image(path)[y : y + size, x : x + size].astype(np.float32)
        images.append(torch.from_numpy((pixels - 116) / 57).permute(2, 0, 1))
        own = torch.from_numpy(boxes[inside] - np.array([x, y, x, y], dtype=np.float32))
        targets.append({"boxes": own, "labels": torch.from_numpy(labels[inside])})
        if len(images) == count:
            break
    return torch.stack(images), targets, tuple(index.names)


def find_window(
    boxes: np.ndarray, image_size: tuple[int, int], size: int
) -> tuple[int, int, np.ndarray] | None:
    """Left, top and contents of the first fitting window, in steps of 8 px."""
    for y in range(0, image_size[0] - size + 1, 8):
        for x in range(0, image_size[1] - size + 1, 8):
            touches = (boxes[:, :2] < [x + size, y + size]).all(axis=1) & (
                boxes[:, 2:] > [x, y]
            ).all(axis=1)
            inside = (boxes[:, :2] >= [x, y]).all(axis=1) & (
                boxes[:, 2:] <= [x + size, y + size]
            ).all(axis=1)
            large = (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(axis=1)
            if 3 <= inside.sum() <= 12 and (touches == inside).all() and large[inside].all():
                return x, y, inside
    return None


def ap50(found: list[Target], targets: list[Target], names: tuple[str, ...]) -> float:
    """AP50 of the detections on the crops, over the classes that occur."""
    boxes = torch.cat([target["boxes"] for target in targets]).double().numpy()
    no = np.zeros(len(boxes), dtype=bool)
    truth = GroundTruth(
        image_ids=tuple(range(len(targets))),
        image_index=np.repeat(
            np.arange(len(targets)), [len(target["boxes"]) for target in targets]
        ),
        boxes=boxes,
        labels=torch.cat([target["labels"] for target in targets]).numpy(),
        area=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        ignore=no,
        crowd=no,
        names=names,
        category_ids=tuple(range(1, len(names) + 1)),
    )
    detections = Detections(
        image_index=np.repeat(np.arange(len(found)), [len(one["boxes"]) for one in found]),
        boxes=torch.cat([one["boxes"] for one in found]).double().numpy(),
        scores=torch.cat([one["scores"] for one in found]).double().numpy(),
        labels=torch.cat([one["labels"] for one in found]).numpy(),
    )
    return float(evaluate_boxes(truth, detections).ap50)


def settings_of(name: str, assigner: str) -> dict[str, object]:
    """The small settings of one run."""
    settings = SMALL | (
        TWO_STAGE if name in ("faster_rcnn", "cascade_rcnn", "detectors") else DENSE
    )
    anchors = assigner == "baseline" and name not in ("fcos", "fcos_p2", "rfd", "autoassign")
    return settings | (BASELINE_ANCHORS if anchors else {})


def overfit(
    name: str, assigner: str, data: tuple[Tensor, list[Target], tuple[str, ...]], steps: int
) -> str:
    """Train one detector and return its line of the table."""
    images, targets, names = data
    torch.manual_seed(0)
    net = build_detector(name, len(names), assigner, settings_of(name, assigner)).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    start, reached, step, total = time.process_time(), 0.0, 0, torch.zeros(())
    while step < steps and reached <= TARGET_AP50:
        step += 1
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, step / 10)
        total = torch.stack(list(net(images, targets).values())).sum()
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 35)
        optimizer.step()
        if step % 10 == 0:
            with torch.no_grad():
                reached = ap50(net.eval()(images), targets, names)
            net.train()
    seconds = time.process_time() - start
    loss = float(total.detach())
    return f"| {name} | {assigner} | {step} | {reached:.3f} | {loss:.3f} | {seconds:.0f} |"


def main() -> None:
    """Print one line for each run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=model_names())
    parser.add_argument("--assigners", nargs="+", default=("rfla", "baseline"))
    parser.add_argument("--steps", type=int, default=300, help="give up after this many")
    parser.add_argument("--crop", type=int, default=96, help="side of the crops, px")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = crops(args.crop)
    print(
        f"{sum(len(target['boxes']) for target in data[1])} objects "
        f"in {len(data[1])} crops of {args.crop} px\n"
    )
    print("| model | assigner | steps | AP50 | loss | CPU seconds |\n|---|---|---|---|---|---|")
    for name in args.models:
        for assigner in args.assigners:
            print(overfit(name, assigner, data, args.steps), flush=True)


if __name__ == "__main__":
    main()
