"""A training step and an evaluation of every detector under CUDA's rules, on values of the CPU.

The figures may fall, and must not rise: each wait lets a GPU run dry, each kernel costs 5 us.
"""

import cuda_simulation as cuda
import pytest
import torch

from rfla.cfg.layer_files import model_names
from rfla.models import build_detector

SMALL = {
    "backbone": "resnet18",
    "neck.width": 32,
    "head.width": 32,
    "roi.width": 32,
    "rpn.nms_pre": 200,
    "rpn.max_proposals": 200,
}
# waits and kernels of a step, then of an evaluation: two images, ResNet-18
FIGURES = {
    "fcos": (0, 693, 2, 336),
    "fcos_p2": (0, 695, 2, 339),
    "rfd": (0, 830, 2, 442),
    "retinanet": (7, 853, 2, 322),
    "autoassign": (3, 933, 2, 460),
    "faster_rcnn": (6, 895, 7, 428),
    "cascade_rcnn": (10, 1483, 9, 633),
    "detectors": (10, 2474, 9, 1624),
}
SIZE = 192  # px
QUICK = {"fcos_p2"}


def targets():
    boxes = torch.tensor([[8.0, 8, 20, 24], [40, 30, 52, 40], [60, 60, 70, 66]])
    return [
        {
            "boxes": cuda.OnCuda(own),
            "labels": cuda.OnCuda(torch.arange(len(own)) % 2),
            "ignore": cuda.OnCuda(torch.tensor([[0.0, 0, 20, 20]])),
        }
        for own in (boxes, boxes[:0])
    ]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in FIGURES]
)
def test_a_step_and_an_evaluation(monkeypatch, name):
    torch.manual_seed(0)
    net = cuda.to_cuda(build_detector(name, 2, "rfla", SMALL)).train()
    images = cuda.OnCuda(torch.randn(2, 3, SIZE, SIZE))
    sizes = [(SIZE, SIZE), (SIZE, SIZE - 32)]
    with cuda.simulation(monkeypatch), torch.autocast("cuda", torch.bfloat16):
        net(images, targets(), image_sizes=sizes)  # grids and constants go to the device once
    given = targets()
    with cuda.simulation(monkeypatch) as log, torch.autocast("cuda", torch.bfloat16):
        losses, counts = net(images, given, image_sizes=sizes, with_counts=True)
    assert {value.device.type for value in (*losses.values(), *counts.values())} == {"cuda"}
    assert {value.dtype for value in losses.values()} == {torch.float32}
    assert all(bool(value.values.isfinite()) for value in losses.values())
    assert log.mixed == {}
    training, waits = (sum(log.waits.values()), log.kernels), log.waits

    net.eval()
    with (
        cuda.simulation(monkeypatch) as log,
        torch.autocast("cuda", torch.bfloat16),
        torch.no_grad(),
    ):
        found = net(images, image_sizes=sizes)
    assert {one["boxes"].dtype for one in found} == {torch.float32}
    assert log.mixed == {}
    figures = (*training, sum(log.waits.values()), log.kernels)
    assert all(now <= before for now, before in zip(figures, FIGURES[name], strict=True)), (
        f"{figures}; waits: {(waits + log.waits).most_common()}"
    )


def test_every_model_has_its_figures():
    assert FIGURES.keys() == set(model_names())


def test_what_the_simulation_sees(monkeypatch):
    """By hand: a mask, a read, a copy, a mix; and one kernel for a sum."""
    there = cuda.OnCuda(torch.arange(4.0))
    with cuda.simulation(monkeypatch) as log:
        assert there.device.type == "cuda" and (there + 1).device.type == "cuda"
        assert log.kernels == 1 and not log.waits
        there[there > 2]
        float(there.sum())
        torch.zeros(3).to("cuda")
        torch.zeros(3).to("cuda", non_blocking=True)
        assert sum(log.waits.values()) == 3 and log.mixed == {}
        there.add(torch.zeros(4))
        assert sum(log.mixed.values()) == 1
