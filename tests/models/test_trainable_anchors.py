"""Anchor detectors learn: gradients arrive, frozen parts stay, empty batches and autocast work."""

import pytest
import test_trainable as points
import torch

from rfla.models import build_detector
from rfla.models.faster_rcnn import image_seeds

FEW = {
    "rpn.samples": 64,
    "rpn.nms_pre": 64,
    "rpn.max_proposals": 64,
    "roi.samples": 64,
    "roi.width": 64,
}
TINY = {key: value for key, value in points.TINY.items() if key != "head.norm"} | FEW
# At 96 px: baseline anchors small enough for the boxes, and coarse anchors used though they cross
# the border.
REACHABLE = {"anchors.scale": 2.0, "assigner.allowed_border": -1}
ALL = {"rpn.samples": 10**9, "roi.samples": 10**9}
EMPTY = points.EMPTY
VARIANTS = [
    ("retinanet", "rfla"),
    ("retinanet", "baseline"),
    ("retinanet", "atss"),
    ("faster_rcnn", "rfla"),
    ("faster_rcnn", "baseline"),
    ("faster_rcnn", "atss"),
    ("cascade_rcnn", "rfla"),
    ("detectors", "rfla"),
]
ONE_EACH = ["retinanet", "faster_rcnn", "cascade_rcnn", "detectors"]


@pytest.mark.slow
def test_faster_rcnn_overfits_four_images_in_100_steps():
    assert points.overfit("faster_rcnn", TINY) > 0.9


@pytest.mark.parametrize(("name", "assigner"), VARIANTS)
def test_gradients_reach_every_parameter(name, assigner):
    torch.manual_seed(0)
    net = build_detector(name, 2, assigner, TINY | REACHABLE).train()
    images, targets = points.batch()
    losses, counts = net(images, targets, with_counts=True)
    assert all(
        loss.isfinite() and loss.dim() == 0 and loss.dtype == torch.float32
        for loss in losses.values()
    )
    sum(losses.values()).backward()
    assert [
        key for key, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ] == []
    still = [key for key, p in net.named_parameters() if not p.grad.any()]
    # zero-initialised residual scales hide the convolutions behind them in the first step alone
    assert [key for key in still if ".layer" not in key] == []
    assert counts.keys() == {"positives", "boxes"}
    assert int(counts["positives"]) > 0
    assert int(counts["boxes"]) == 12


@pytest.mark.parametrize("name", ONE_EACH)
def test_frozen_parameters_and_statistics_do_not_move(name):
    settings = {key: value for key, value in TINY.items() if not key.startswith("backbone.")}
    net = build_detector(name, 2, "rfla", settings).train()  # the authors' freezing
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.01)
    images, targets = points.batch()
    sum(net(images, targets).values()).backward()
    optimizer.step()
    moved = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert "neck.fpn_convs.0.bias" in moved
    assert [
        key for key in moved if "running" in key or ".layer1." in key or ".conv1.weight_" in key
    ] == []
    assert (
        not {"backbone.conv1.weight", "backbone.bn1.bias", "neck.rfp_modules.0.conv1.weight"}
        & moved
    )


@pytest.mark.parametrize(("name", "assigner"), VARIANTS)
def test_images_without_boxes(name, assigner):
    net = build_detector(name, 2, assigner, TINY).train()
    images, targets = points.batch(2, 64)
    for mixed in ([targets[0], EMPTY], [EMPTY, EMPTY]):
        net.zero_grad()
        losses = net(images, mixed)
        assert all(loss.isfinite() for loss in losses.values())
        sum(losses.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", ONE_EACH)
def test_a_box_of_no_area_keeps_the_losses_finite(name):
    net = build_detector(name, 2, "rfla", TINY).train()
    images, _ = points.batch(1, 64)
    boxes = torch.tensor(
        [[10.0, 10.0, 10.0, 20.0], [30.0, 30.0, 30.0, 30.0], [5.0, 40.0, 15.0, 50.0]]
    )
    losses = net(images, [{"boxes": boxes, "labels": torch.tensor([0, 1, 0])}])
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", ONE_EACH)
def test_a_step_under_autocast_is_finite(name):
    torch.manual_seed(0)
    net = build_detector(name, 2, "rfla", TINY).train()
    images, targets = points.batch(2, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = net(images, targets)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = net.eval()(images)
    assert all(one["boxes"].dtype == one["scores"].dtype == torch.float32 for one in found)


@pytest.mark.parametrize("name", ["retinanet", "faster_rcnn"])
def test_a_batch_loses_what_its_images_lose(name):
    """Sums over all that the samplers take: two copies of an image cost what one does."""
    net = build_detector(name, 2, "rfla", TINY | ALL | {"backbone.norm_eval": True}).train()
    images, targets = points.batch(1, 64)
    alone = net(images, targets)
    twice = net(images.repeat(2, 1, 1, 1), targets * 2)
    for key, value in alone.items():
        torch.testing.assert_close(twice[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["retinanet", "cascade_rcnn"])
def test_detections_do_not_depend_on_the_batch(name):
    torch.manual_seed(0)
    net = build_detector(name, 2, "rfla", TINY | {"test.score_thr": 0.0, "test.max_det": 50}).eval()
    images, _ = points.batch(2)
    sizes = [(96, 96), (70, 90)]
    with torch.no_grad():
        together = net(images, image_sizes=sizes)
        for image, size, found in zip(images, sizes, together, strict=True):
            (alone,) = net(image[None], image_sizes=[size])
            torch.testing.assert_close(alone["scores"], found["scores"], rtol=1e-4, atol=1e-5)
            assert found["boxes"].amax(dim=0)[2:].tolist() <= [size[1], size[0]]


def test_ignore_regions_take_no_part():
    """Background under an ignore region is sampled by neither stage."""
    net = build_detector("faster_rcnn", 2, "rfla", TINY | ALL).train()
    images, targets = points.batch(1, 64)
    plain = net(images, targets)
    covered = net(images, [targets[0] | {"ignore": torch.tensor([[0.0, 0, 64, 64]])}])
    assert covered["loss_rpn_cls"] != plain["loss_rpn_cls"]
    matched = net.assign(
        net.raw(images),
        [targets[0] | {"ignore": torch.tensor([[-99.0, -99, 199, 199]])}],
        [(64, 64)],
    )
    assert not (matched == -1).any()


@pytest.mark.parametrize("assigner", ["rfla", "baseline"])
def test_an_image_in_an_ignore_region_teaches_nothing(assigner):
    target = points.EMPTY | {"ignore": torch.tensor([[-9e3, -9e3, 9e3, 9e3]])}
    images, _ = points.batch(1)
    for name in ("retinanet", "faster_rcnn"):
        losses = build_detector(name, 2, assigner, TINY | ALL).train()(images, [target])
        assert [key for key, loss in losses.items() if loss != 0] == []


def test_samples_follow_the_image_and_not_its_place():
    """Same generator state, same boxes, other order: the seeds move with their images.

    A further step draws others.
    """
    _, targets = points.batch(3)
    torch.manual_seed(5)
    seeds = image_seeds(targets)
    torch.manual_seed(5)
    assert image_seeds(targets[::-1]) == seeds[::-1]
    assert len(set(seeds)) == 3
    assert not set(image_seeds(targets)) & set(seeds)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retinanet", "faster_rcnn", "detectors"])
def test_two_processes_equal_one(tmp_path, name):
    """Same gradients as one process with the whole batch, samplers included.

    No parameter is unused, boxes or none.
    """
    torch.multiprocessing.spawn(_ddp_worker, args=(2, tmp_path / "store", name), nprocs=2)


def _ddp_worker(rank, world, path, name):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = build_detector(name, 2, "rfla", TINY | {"backbone.norm_eval": True}).train()
    scenes = [points.scene(seed, 64, 3) for seed in range(world)]

    def gradients(model, images, targets):
        net.zero_grad()
        torch.manual_seed(7)
        sum(model(images, targets).values()).backward()
        return {key: parameter.grad.clone() for key, parameter in net.named_parameters()}

    together = gradients(
        net, torch.stack([image for image, _ in scenes]), [target for _, target in scenes]
    )
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{path}", rank=rank, world_size=world
    )
    model = torch.nn.parallel.DistributedDataParallel(net)
    image, target = scenes[rank]
    apart = gradients(model, image[None], [target])
    for key, expected in together.items():
        difference = (apart[key] - expected).abs().max()
        assert difference <= 1e-3 * expected.abs().max() + 1e-6, f"{key}: {difference}"
    for targets in ([EMPTY], [target]):  # an unused parameter makes the next forward raise
        gradients(model, image[None], targets)
    torch.distributed.destroy_process_group()
