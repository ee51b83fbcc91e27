"""Fixtures for the model tests: the weight recipe, and detectors filled by it."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def recipe() -> ModuleType:
    """`recipe.py` beside this file (the test directories are no packages)."""
    spec = importlib.util.spec_from_file_location("recipe", Path(__file__).with_name("recipe.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def official_net(parity_dir: Path, recipe: ModuleType) -> Callable[..., torch.nn.Module]:
    """`official_net("fcos_p2_rfla", "fcos_p2", "rfla")`: a detector with the recorded weights."""
    from rfla.models import build_detector, load_mmdet

    def build(record: str, name: str, assigner: str, settings: dict[str, Any] | None = None) -> torch.nn.Module:
        entries = json.loads((parity_dir / "models" / record / "state_dict.json").read_text())["entries"]
        net = build_detector(name, num_classes=8, assigner=assigner, settings=settings)
        load_mmdet(net, recipe.recipe_state({entry[0]: tuple(entry[1]) for entry in entries}))
        return net

    return build


@pytest.fixture
def truth() -> Callable[[dict[str, Any]], list[dict[str, torch.Tensor]]]:
    """The fixed boxes of a recorded training case as targets."""

    def make(case: dict[str, Any]) -> list[dict[str, torch.Tensor]]:
        return [
            {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64)}
            for boxes, labels in zip(case["gts"], case["labels"], strict=True)
        ]

    return make


@pytest.fixture
def shrunken_fields() -> Callable[[torch.nn.Module], Any]:
    """Context in which a point detector's assigner gives image i of a batch fields shrunk by 0.9**i.

    That is an accident of the official code: it shrinks the caller's fields in place, and the images of a batch share
    them; an image without boxes does not shrink them.
    """
    from contextlib import contextmanager

    @contextmanager
    def shrunken(net: torch.nn.Module) -> Any:
        assigner = net.assigner
        if not hasattr(assigner, "decay"):
            yield
            return

        class Accident:
            def batch(self, grid, gt_boxes, ignore_boxes=None):
                rows = []
                for boxes in gt_boxes:
                    rows.append(assigner.batch(grid, [boxes])[0])
                    grid = grid.scaled(assigner.decay) if len(boxes) else grid
                return torch.stack(rows)

        net.assigner = Accident()
        yield
        net.assigner = assigner

    return shrunken
