"""Normalisation: both channel orders, and padding that stays 0."""

import torch

from rfla.ops.normalize import normalize_images


def test_rgb_and_bgr():
    images = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    rgb = normalize_images(images, None, (0.0, 10.0, 20.0), (1.0, 2.0, 5.0))
    assert rgb[0, :, 0, 0].tolist() == [10, 5, 2]
    bgr = normalize_images(images, None, (0.0, 10.0, 20.0), (1.0, 1.0, 1.0), "bgr")
    assert bgr[0, :, 0, 0].tolist() == [30, 10, -10]


def test_padding_is_zero_and_the_input_untouched():
    images = torch.full((2, 3, 4, 6), 7, dtype=torch.uint8)
    out = normalize_images(images, [(4, 6), (2, 5)], (1.0, 1.0, 1.0), (2.0, 2.0, 2.0))
    assert (out[0] == 3).all()
    assert (out[1, :, :2, :5] == 3).all()
    assert out[1].sum() == 3 * 3 * 2 * 5
    assert (images == 7).all()
    floats = images.float()
    normalize_images(floats, [(2, 2), (2, 2)], (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert (floats == 7).all()
