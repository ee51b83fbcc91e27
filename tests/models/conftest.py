"""Fixtures for the model tests: the weight recipe, and detectors filled by it."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def recipe() -> ModuleType:
    """`recipe.py`."""
    return import_module("recipe")


@pytest.fixture(scope="session")
def official_net(parity_dir: Path, recipe: ModuleType) -> Callable[..., torch.nn.Module]:
    """`official_net("fcos_p2_rfla", "fcos_p2", "rfla")`: a detector with the recorded weights."""
    from rfla.models import build_detector, load_mmdet

    def build(
        record: str, name: str, assigner: str, settings: dict[str, Any] | None = None
    ) -> torch.nn.Module:
        entries = json.loads((parity_dir / "models" / record / "state_dict.json").read_text())[
            "entries"
        ]
        net = build_detector(name, num_classes=8, assigner=assigner, settings=settings)
        load_mmdet(net, recipe.recipe_state({entry[0]: tuple(entry[1]) for entry in entries}))
        return net

    return build


@pytest.fixture
def check_keys(parity_dir: Path) -> Callable[[torch.nn.Module, str], None]:
    """`check_keys(net, record)`: names, shapes, and what is frozen are those of the record."""
    from rfla.models.mmdet import our_key

    def kind(parameter: torch.nn.Parameter | None) -> str:
        if parameter is None:
            return "buffer"
        return "param" if parameter.requires_grad else "param_frozen"

    def check(net: torch.nn.Module, record: str) -> None:
        path = parity_dir / "models" / record / "state_dict.json"
        entries = json.loads(path.read_text())["entries"]
        expected = {our_key(entry[0]): (tuple(entry[1]), entry[3]) for entry in entries}
        parameters = dict(net.named_parameters())
        assert expected == {
            key: (tuple(value.shape), kind(parameters.get(key)))
            for key, value in net.state_dict().items()
        }

    return check


@pytest.fixture
def truth() -> Callable[[dict[str, Any]], list[dict[str, torch.Tensor]]]:
    """The fixed boxes of a recorded training case as targets."""

    def make(case: dict[str, Any]) -> list[dict[str, torch.Tensor]]:
        return [
            {
                "boxes": torch.tensor(boxes).reshape(-1, 4),
                "labels": torch.tensor(labels, dtype=torch.int64),
            }
            for boxes, labels in zip(case["gts"], case["labels"], strict=True)
        ]

    return make


def in_float64(net: torch.nn.Module, call: Callable[[], Any]) -> Any:
    """What `call` returns with the network in float64; the network is as before, come what may."""
    state = {key: value.clone() for key, value in net.state_dict().items()}
    net.double()
    try:
        return call()
    finally:
        net.float().load_state_dict(state)


@pytest.fixture
def float64() -> Callable[..., Any]:
    return in_float64


@pytest.fixture
def check_training() -> Callable[..., None]:
    """`check_training(net, case, images, targets)`: one recorded training step, within 1e-4.

    Losses and gradient norms are compared. A norm may also differ by `noise` times the norm of all
    gradients together. One can hang on a ReLU next to zero, which in float32 falls on either side
    of it, by the number of threads: where a norm does not meet the record, the step is repeated in
    float64, which has to meet the record or our float32 number. That is computed without oneDNN,
    whose kernels round otherwise on other processors.
    """
    from rfla.models.mmdet import our_key

    def step(
        net: torch.nn.Module, case: dict[str, Any], images: torch.Tensor, targets: list[Any]
    ) -> dict[str, float]:
        net.train().zero_grad()
        sizes = [tuple(case["img_shape"])] if "img_shape" in case else None
        losses = net(images, targets, image_sizes=sizes)
        assert set(losses) == {name for name in case["losses"] if "loss_" in name}
        for name, value in losses.items():
            assert value.item() == pytest.approx(case["losses"][name], rel=1e-4, abs=1e-7), name
        sum(losses.values()).backward()
        return {
            name: float(p.grad.double().norm())
            for name, p in net.named_parameters()
            if p.requires_grad
        }

    def check(
        net: torch.nn.Module,
        case: dict[str, Any],
        images: torch.Tensor,
        targets: list[Any],
        noise: float = 1e-9,
    ) -> None:
        with torch.backends.mkldnn.flags(enabled=False):
            norms = step(net, case, images, targets)
        total = sum(norm**2 for norm in norms.values()) ** 0.5
        assert total == pytest.approx(case["total_grad_l2"], rel=1e-4)
        recorded = {our_key(key): value for key, value in case.get("grad_l2", {}).items()}
        if not recorded:
            return
        assert recorded.keys() == norms.keys()

        def close(a: float, b: float) -> bool:
            return a == pytest.approx(b, rel=1e-4, abs=noise * total)

        missed = [name for name, value in recorded.items() if not close(norms[name], value)]
        if missed:
            exact = in_float64(net, lambda: step(net, case, images.double(), targets))
            missed = [
                name
                for name in missed
                if not (close(exact[name], recorded[name]) or close(exact[name], norms[name]))
            ]
        assert missed == []

    return check


@pytest.fixture
def shrunken_fields() -> Callable[[torch.nn.Module], Any]:
    """Context in which image i of a batch gets fields shrunk by 0.9**i from a point assigner.

    That is an accident of the official code: it shrinks the caller's fields in place, and the
    images of a batch share them; an image without boxes does not shrink them.
    """
    from contextlib import contextmanager

    @contextmanager
    def shrunken(net: torch.nn.Module) -> Any:
        assigner = net.points.assigner
        if not hasattr(assigner, "decay"):
            yield
            return

        class Accident:
            def batch(self, grid, gt_boxes, ignore_boxes, image_sizes, allowed_border):
                rows = []
                for boxes in gt_boxes:
                    rows.append(assigner.batch(grid, [boxes])[0])
                    grid = grid.scaled(assigner.decay) if len(boxes) else grid
                return torch.stack(rows)

        net.points.assigner = Accident()
        try:
            yield
        finally:
            net.points.assigner = assigner

    return shrunken
