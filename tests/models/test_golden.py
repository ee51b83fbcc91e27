"""Whole detectors against numbers of the authors' code that live in the repository itself."""

import json
from pathlib import Path

import pytest
import torch

from rfla.models import build_detector, load_mmdet

GOLDEN = Path(__file__).parent.parent / "golden"
ALL = {
    "rpn.samples": 10**9,
    "roi.samples": 10**9,
    "rpn.target_anchor_scale": 0.9,
}  # as recorded, the accident included
CASES = {
    "fcos_p2_rfla": ("fcos_p2", "rfla", {}),
    "autoassign_base": ("autoassign", "baseline", {}),
    "retinanet_rfla": ("retinanet", "rfla", {}),
    "faster_rfla": ("faster_rcnn", "rfla", ALL),
    "cascade_rfla": ("cascade_rcnn", "rfla", ALL),
    "detectors_rfla": ("detectors", "rfla", ALL),
}
SLOW = ["autoassign_base", "retinanet_rfla", "cascade_rfla", "detectors_rfla"]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in CASES]
)
def test_detections_and_losses(name, recipe, truth):
    model, assigner, settings = CASES[name]
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    net = build_detector(
        model, 8, assigner, settings | {"test.score_thr": golden["score_thr"]}
    ).eval()
    load_mmdet(net, recipe.recipe_state({key: tuple(shape) for key, shape in golden["entries"]}))
    with torch.no_grad():
        (found,) = net(recipe.recipe_image())
    expected = torch.tensor(golden["boxes_scores"])
    torch.testing.assert_close(found["boxes"], expected[:, :4], rtol=0, atol=1e-2)
    torch.testing.assert_close(found["scores"], expected[:, 4], rtol=0, atol=1e-4)
    assert found["labels"].tolist() == golden["labels"]

    train = golden["train"]
    losses = net.train()(
        recipe.recipe_image(), truth({"gts": train["gts"], "labels": train["labels"]})
    )
    for key, value in losses.items():
        assert value.item() == pytest.approx(train["losses"][key], rel=1e-4, abs=1e-7), key
    sum(losses.values()).backward()
    total = (
        sum(float(p.grad.double().square().sum()) for p in net.parameters() if p.grad is not None)
        ** 0.5
    )
    assert total == pytest.approx(train["total_grad_l2"], rel=1e-4)
