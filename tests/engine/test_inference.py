"""The way of an image: normalised, run, boxes back to px of the original; shards joined exactly."""

import torch
from torch import Tensor, nn

from rfla.cfg.model_schema import NormalizeConfig
from rfla.engine.inference import Inference, Speed


class Corners(nn.Module):
    """Answers each image with its whole input as one box, and remembers what it was given."""

    def forward(
        self, images: Tensor, image_sizes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        self.images = images
        return [
            {
                "boxes": torch.tensor([[0.0, 0.0, width, height]]),
                "scores": torch.tensor([0.5]),
                "labels": torch.tensor([0]),
            }
            for height, width in image_sizes
        ]


def test_boxes_come_back_in_px_of_the_original() -> None:
    """A 20 x 50 px image shown at 40 x 100 and one of 64 x 96 px at half its size."""
    normalize = NormalizeConfig(mean=(100, 100, 100), std=(50, 50, 50), channels="rgb")
    net, speed = Corners(), Speed()
    inference = Inference(net, normalize, torch.device("cpu"))
    images = torch.full((2, 3, 64, 128), 150, dtype=torch.uint8)
    scales = torch.tensor([[2.0, 2.0], [0.5, 0.5]])
    found = inference(images, [(40, 100), (32, 48)], scales, [(20, 50), (64, 96)], speed)
    assert found[0]["boxes"].tolist() == [[0, 0, 50, 20]]
    assert found[1]["boxes"].tolist() == [[0, 0, 96, 64]]
    assert float(net.images[0, 0, 39, 99]) == 1.0  # (150 - 100) / 50
    assert float(net.images[0, 0, 40, 0]) == float(net.images[0, 0, 0, 100]) == 0.0  # padding
    assert speed.images == 2 and set(speed.per_image()) == {
        "load", "preprocess", "inference", "gather",
    }  # fmt: skip


def test_boxes_beside_the_image_are_left_out() -> None:
    """At 30 x 20 px: one inside, one over the border, the padding right and below, one above."""

    class Found(nn.Module):
        def forward(self, images: Tensor, image_sizes: object) -> list[dict[str, Tensor]]:
            boxes = [[1, 1, 5, 5], [25, 10, 40, 28], [33, 2, 40, 8], [3, 21, 9, 32], [4, -9, 8, -2]]
            return [{"boxes": torch.tensor(boxes).float(), "scores": torch.arange(5.0)}]

    inference = Inference(Found(), NormalizeConfig(), torch.device("cpu"))
    images = torch.zeros(1, 3, 32, 64, dtype=torch.uint8)
    (output,) = inference(images, [(20, 30)], torch.ones(1, 2), [(20, 30)])
    assert output["boxes"].tolist() == [[1, 1, 5, 5], [25, 10, 30, 20]]
    assert output["scores"].tolist() == [0, 1]
