"""Point detectors learn: gradients arrive, frozen parts stay, empty batches and autocast work."""

import numpy as np
import pytest
import torch

from rfla.models import build_detector

TINY = {
    "backbone": "resnet18",
    "neck.width": 32,
    "head.width": 32,
    "head.depth": 1,
    "head.norm": "gn",
    "backbone.frozen_stages": -1,
    "backbone.norm_eval": False,
    "backbone.norm_trainable": True,
}
VARIANTS = [
    ("fcos_p2", "rfla"),
    ("fcos_p2", "baseline"),
    ("fcos_p2", "atss"),
    ("fcos", "rfla"),
    ("autoassign", "rfla"),
    ("autoassign", "baseline"),
    ("autoassign", "atss"),
]
EMPTY = {
    "boxes": torch.zeros(0, 4),
    "labels": torch.zeros(0, dtype=torch.int64),
    "ignore": torch.zeros(0, 4),
}


def scene(seed, size=96, count=6):
    """A noisy image with bright (class 0) and dark (class 1) rectangles of 6 to 16 px."""
    random = np.random.default_rng(seed)
    image = random.normal(0, 0.3, (3, size, size)).astype(np.float32)
    boxes, labels = [], []
    for cell in random.choice(16, count, replace=False):
        side = size // 4
        width, height = random.integers(6, 17, 2)
        x = cell % 4 * side + random.integers(0, side - width + 1)
        y = cell // 4 * side + random.integers(0, side - height + 1)
        label = int(random.integers(0, 2))
        image[:, y : y + height, x : x + width] += 2.0 if label == 0 else -2.0
        boxes.append([x, y, x + width, y + height])
        labels.append(label)
    return torch.from_numpy(image), {
        "boxes": torch.tensor(boxes, dtype=torch.float32),
        "labels": torch.tensor(labels),
    }


def batch(count=2, size=96):
    scenes = [scene(seed, size) for seed in range(count)]
    return torch.stack([image for image, _ in scenes]), [target for _, target in scenes]


def ap50(found, targets):
    from rfla.metrics import Detections, GroundTruth, evaluate_boxes

    boxes = torch.cat([target["boxes"] for target in targets]).double().numpy()
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    no = np.zeros(len(boxes), dtype=bool)
    truth = GroundTruth(
        image_ids=tuple(range(len(targets))),
        image_index=np.repeat(
            np.arange(len(targets)), [len(target["boxes"]) for target in targets]
        ),
        boxes=boxes,
        labels=torch.cat([target["labels"] for target in targets]).numpy(),
        area=area,
        ignore=no,
        crowd=no,
        names=("bright", "dark"),
        category_ids=(1, 2),
    )
    detections = Detections(
        image_index=np.repeat(np.arange(len(found)), [len(one["boxes"]) for one in found]),
        boxes=torch.cat([one["boxes"] for one in found]).double().numpy(),
        scores=torch.cat([one["scores"] for one in found]).double().numpy(),
        labels=torch.cat([one["labels"] for one in found]).numpy(),
    )
    return evaluate_boxes(truth, detections).ap50


def overfit(name, settings):
    """AP50 of a detector on the four images that it has learnt for 100 steps."""
    torch.manual_seed(0)
    net = build_detector(name, 2, "rfla", settings).train()
    images, targets = batch(4)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for step in range(100):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 10) * (0.1 if step >= 80 else 1.0)
        losses = net(images, targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 35)
        optimizer.step()
    with torch.no_grad():
        return ap50(net.eval()(images), targets)


@pytest.mark.slow
def test_fcos_p2_overfits_four_images_in_100_steps():
    assert overfit("fcos_p2", TINY) > 0.9


@pytest.mark.parametrize(("name", "assigner"), VARIANTS)
def test_gradients_reach_every_parameter(name, assigner):
    torch.manual_seed(0)
    net = build_detector(name, 2, assigner, TINY).train()
    for scale in net.head.scales:
        assert scale.scale.shape == ()
    images, targets = batch()
    losses, counts = net(images, targets, with_counts=True)
    assert all(loss.isfinite() and loss.dim() == 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert [
        key for key, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ] == []
    still = [
        key
        for key, p in net.named_parameters()
        if not p.grad.any() and not key.startswith("head.scales")
    ]
    # zero-initialised residual scales hide the convolutions behind them in the first step alone
    assert [key for key in still if not key.startswith("backbone.layer")] == []
    assert counts.keys() == {"positives", "boxes"}
    assert int(counts["positives"]) > 0
    assert int(counts["boxes"]) == 12


@pytest.mark.parametrize("name", ["fcos_p2", "autoassign"])
def test_frozen_parameters_and_statistics_do_not_move(name):
    settings = {key: value for key, value in TINY.items() if not key.startswith("backbone.")}
    net = build_detector(name, 2, "rfla", settings).train()  # the authors' freezing
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.01)
    images, targets = batch()
    sum(net(images, targets).values()).backward()
    optimizer.step()
    moved = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert "head.conv_cls.bias" in moved
    assert not [
        key
        for key in moved
        if "bn" in key or "downsample.1" in key or key.startswith("backbone.layer1")
    ]
    assert "backbone.conv1.weight" not in moved


@pytest.mark.parametrize(
    ("name", "assigner"), [variant for variant in VARIANTS if variant[0] != "fcos"]
)
def test_images_without_boxes(name, assigner):
    net = build_detector(name, 2, assigner, TINY).train()
    images, targets = batch()
    for mixed in ([targets[0], EMPTY], [EMPTY, EMPTY]):
        net.zero_grad()
        losses = net(images, mixed)
        assert all(loss.isfinite() for loss in losses.values())
        sum(losses.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("assigner", ["rfla", "baseline"])
@pytest.mark.parametrize("name", ["fcos_p2", "autoassign"])
def test_an_image_in_an_ignore_region_teaches_nothing(name, assigner):
    net = build_detector(name, 2, assigner, TINY).train()
    images, _ = batch(1)
    for region, learns in ((-99.0, False), (94.0, True)):
        target = EMPTY | {"ignore": torch.tensor([[region, region, 999, 999]])}
        raw = net.head(net.pyramid(images))
        for level in raw["cls"]:
            level.retain_grad()
        sum(net.loss(raw, [target], [(96, 96)]).losses.values()).backward()
        assert any(level.grad.any() for level in raw["cls"]) == learns


def test_ignore_regions_take_no_part():
    """Background inside an ignore region pulls at nothing, whatever is predicted there.

    Other background does.
    """
    net = build_detector("fcos_p2", 2, "rfla", TINY).train()
    images, targets = batch(1)
    targets[0]["ignore"] = torch.tensor([[0.0, 0, 96, 48]])
    raw = net.head(net.pyramid(images))
    for level in raw["cls"]:
        level.retain_grad()
    net.loss(raw, targets, [(96, 96)]).losses["loss_cls"].backward()
    gradient = torch.cat([level.grad.flatten(2) for level in raw["cls"]], dim=2).abs().sum(dim=1)
    matched = net.assign(raw, targets, [(96, 96)])
    assert (matched == -2).sum() > 100
    assert (gradient[matched == -2] == 0).all()
    assert (gradient[matched != -2] > 0).all()


@pytest.mark.parametrize("name", ["fcos_p2", "autoassign"])
def test_a_step_under_autocast_is_finite(name):
    torch.manual_seed(0)
    net = build_detector(name, 2, "rfla", TINY).train()
    images, targets = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = net(images, targets)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = net.eval()(images)
    assert all(one["boxes"].dtype == torch.float32 for one in found)


def test_a_batch_loses_what_its_images_lose():
    """Sums over the batch: with equal targets, two copies of an image cost what one does."""
    settings = TINY | {"backbone.norm_eval": True}
    net = build_detector("fcos_p2", 2, "rfla", settings).train()
    images, targets = batch(1)
    alone = net(images, targets)
    twice = net(images.repeat(2, 1, 1, 1), targets * 2)
    for key, value in alone.items():
        torch.testing.assert_close(twice[key], value, rtol=1e-4, atol=1e-5)


def test_detections_do_not_depend_on_the_batch():
    net = build_detector(
        "fcos_p2", 2, "rfla", TINY | {"test.score_thr": 0.0099, "test.max_det": 50}
    ).eval()
    images, _ = batch(2)
    with torch.no_grad():
        together = net(images)
        for image, found in zip(images, together, strict=True):
            torch.testing.assert_close(
                net(image[None])[0]["scores"], found["scores"], rtol=1e-4, atol=1e-5
            )


def _ddp_worker(rank, world, path, name):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{path}", rank=rank, world_size=world
    )
    torch.manual_seed(0)
    net = torch.nn.parallel.DistributedDataParallel(build_detector(name, 2, "rfla", TINY).train())
    image, target = scene(rank, 64, 3)
    for targets in (
        [target],
        [EMPTY],
        [target],
    ):  # an unused parameter makes the next forward raise
        sum(net(image[None], targets).values()).backward()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fcos_p2", "autoassign"])
def test_distributed_training_finds_no_unused_parameter(tmp_path, name):
    torch.multiprocessing.spawn(_ddp_worker, args=(2, tmp_path / "store", name), nprocs=2)
