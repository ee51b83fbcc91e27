"""A data set that several programs are tried on."""

import json
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def three_images(tmp_path: Path) -> Path:
    """Three images of 64 x 64 px, the first two with two 8 px boxes each."""
    from PIL import Image

    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "annotations").mkdir()
    images, boxes = [], []
    for i in range(3):
        Image.fromarray(np.full((64, 64, 3), 90 + i, np.uint8)).save(
            tmp_path / "images" / "train" / f"{i}.png"
        )
        images.append({"id": i + 1, "file_name": f"{i}.png", "height": 64, "width": 64})
        for x in (8, 40) if i < 2 else ():
            box = {
                "id": len(boxes) + 1,
                "image_id": i + 1,
                "category_id": 1,
                "bbox": [x, 8, 8, 8],
                "area": 64,
            }
            boxes.append(box | {"iscrowd": 0})
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "annotations" / "train.json").write_text(json.dumps(content))
    return tmp_path
