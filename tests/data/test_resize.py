"""The resize is mmcv's."""

import numpy as np
import pytest

from rfla.data.resize import resize_long_side, resized_shape


@pytest.mark.parametrize(
    ("height", "width", "imgsz", "shape"),
    [
        (100, 200, 50, (25, 50)),
        (37, 50, 80, (59, 80)),
        (1, 900, 300, (1, 300)),
        (90, 70, 51, (51, 40)),
        (64, 64, 64, (64, 64)),
        (101, 200, 50, (25, 50)),  # 25.25
        (102, 200, 50, (26, 50)),  # 25.5
        (200, 101, 50, (50, 25)),
        (200, 102, 50, (50, 26)),
        (900, 1, 300, (300, 1)),
    ],
)
def test_resized_shape(height: int, width: int, imgsz: int, shape: tuple[int, int]):
    """int(side * imgsz / long side + 0.5)."""
    assert resized_shape(height, width, imgsz) == shape
    image, (sx, sy) = resize_long_side(np.zeros((height, width, 3), np.uint8), imgsz)
    assert image.shape[:2] == shape and (sx, sy) == (shape[1] / width, shape[0] / height)


@pytest.mark.parametrize("number", range(5))
def test_resize_flip_normalise_pad_as_the_official_pipeline(parity, number: int):
    """Records of mmcv's Resize / RandomFlip / Normalize / Pad."""
    manifest, tensors = parity("dataset")
    case = next(case for case in manifest["cases"] if case["id"] == f"pipeline_{number}")
    rgb = tensors[case["input_bgr_uint8"]].numpy()[..., ::-1]
    height, width = case["img_shape"][:2]
    image, (sx, sy) = resize_long_side(np.ascontiguousarray(rgb), max(height, width))
    assert image.shape[:2] == (height, width)
    np.testing.assert_allclose((sx, sy), case["scale_factor"][:2], rtol=1e-6)
    boxes = tensors[case["boxes"]].numpy() * np.array([sx, sy, sx, sy], np.float32)
    boxes[:, 0::2], boxes[:, 1::2] = boxes[:, 0::2].clip(0, width), boxes[:, 1::2].clip(0, height)
    if case["flip"]:
        image = image[:, ::-1]
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
    channels = image if case["norm"]["to_rgb"] else image[..., ::-1]
    normalised = (channels.astype(np.float32) - np.array(case["norm"]["mean"])) / np.array(
        case["norm"]["std"]
    )
    expected = tensors[case["out_img_hwc"]].numpy()
    np.testing.assert_allclose(boxes, tensors[case["out_boxes"]].numpy(), atol=1e-4)
    # OpenCV 5 rounds a resized value differently from OpenCV 4.8 here and there: one grey level,
    # not more.
    level = 1.001 / np.array(case["norm"]["std"]).min()
    difference = np.abs(normalised - expected[:height, :width])
    assert difference.max() <= level and (difference > 1e-4).mean() < 0.02
    assert not expected[height:].any() and not expected[:, width:].any()
