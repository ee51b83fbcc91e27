import pytest
import torch

from rfla.models.roi_align import RoIAlignPyramid, pool_boxes


def test_levels_by_hand():
    """sqrt(area) below 112 px is the finest level, then one more for each doubling.

    No area is the finest too.
    """
    sides = torch.tensor([0.0, 4.0, 111.0, 112.0, 223.0, 224.0, 448.0, 5000.0])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    assert RoIAlignPyramid([4, 8, 16, 32]).levels(boxes).tolist() == [0, 0, 0, 1, 1, 2, 3, 3]


def test_a_box_of_negative_sides_is_the_finest_level():
    pooler = RoIAlignPyramid([4, 8])
    rois = torch.tensor([[0, 9.0, 9, 5, 300], [0, 300, 300, 9, 9], [0, 0, 0, 300, 300]])
    assert pooler.levels(rois[:, 1:]).tolist() == [0, 0, 1]
    features = [torch.ones(1, 1, 64, 64), torch.ones(1, 1, 32, 32)]
    assert pooler(features, rois).shape == (3, 1, 7, 7)


def test_a_constant_map_pools_to_its_constant():
    pooler = RoIAlignPyramid([4, 8], size=2)
    features = [torch.full((1, 1, 64, 64), 3.0), torch.full((1, 1, 32, 32), 7.0)]
    rois = torch.tensor([[0.0, 10.0, 10.0, 150.0, 150.0], [0.0, 20.0, 20.0, 26.0, 30.0]])
    assert pooler(features, rois).flatten(1).tolist() == [[7.0] * 4, [3.0] * 4]


def test_a_box_of_nan_is_an_empty_one():
    """As the box (0, 0, 0, 0): the operator would read from anywhere in memory."""
    features = [torch.rand(1, 1, 8, 8)]
    rois = torch.tensor([[0.0, *[torch.nan] * 4], [0.0, 0.0, 0.0, 0.0, 0.0]])
    nothing, empty = RoIAlignPyramid([4])(features, rois)
    assert torch.equal(nothing, empty)


def test_no_rois():
    features = [torch.zeros(1, 3, 8, 8, requires_grad=True) for _ in range(2)]
    pooled = RoIAlignPyramid([4, 8])(features, torch.zeros(0, 5))
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert all(level.grad is not None for level in features)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pools_half_precision_features_in_float32(dtype):
    features = [torch.rand(1, 2, 16, 16).to(dtype)]
    rois = torch.tensor([[0.0, 3.0, 3.0, 40.0, 40.0]])
    pooled = RoIAlignPyramid([4])(features, rois)
    torch.testing.assert_close(pooled, RoIAlignPyramid([4])([features[0].float()], rois))


def test_equals_the_official_extractor(parity):
    manifest, tensors = parity("components")
    case = next(case for case in manifest["cases"] if case["id"] == "SingleRoIExtractor")
    pooler = RoIAlignPyramid([4, 8, 16, 32], size=7, finest_scale=case["finest_scale"])
    rois = tensors["roi.rois"]
    assert pooler.levels(rois[:, 1:]).tolist() == case["levels"]
    pooled = pooler([tensors[f"roi.feat{level}"] for level in range(4)], rois)
    torch.testing.assert_close(pooled, tensors["roi.out"], rtol=1e-5, atol=1e-5)


def test_more_rois_than_one_call_can_count(monkeypatch):
    features = [torch.rand(1, 2, 16, 16, requires_grad=True)]
    corners = torch.rand(23, 2) * 40
    rois = torch.cat((torch.zeros(23, 1), corners, corners + 9), dim=1)
    whole = RoIAlignPyramid([4])(features, rois)
    monkeypatch.setattr("rfla.models.roi_align.MAX_OUTPUTS", 5 * 2 * 49)
    torch.testing.assert_close(RoIAlignPyramid([4])(features, rois), whole, rtol=0, atol=0)


def test_deterministic_algorithms_take_the_same_operator(monkeypatch):
    """torchvision's function would choose a version in Python that holds every sample at once."""
    monkeypatch.setattr("torchvision.ops.roi_align", None)
    features, rois = [torch.rand(1, 2, 16, 16)], torch.tensor([[0.0, 3, 3, 40, 40]])
    expected = RoIAlignPyramid([4])(features, rois)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert torch.equal(RoIAlignPyramid([4])(features, rois), expected)
    finally:
        torch.use_deterministic_algorithms(False)


def test_one_sample_a_cell_is_read_as_the_operator_reads_it():
    """On a CPU another way is taken: the same cells, in the same order, with the same gradient."""
    torch.manual_seed(0)
    features = torch.rand(2, 5, 6, 9, requires_grad=True)
    low = torch.rand(40, 2) * torch.tensor([44.0, 32.0]) - 6
    image = torch.arange(2.0).repeat(20)[:, None]
    rois = torch.cat([image, low, low + torch.rand(40, 2) * 20], dim=1)
    ours = pool_boxes(features, rois, stride=4, size=3, samples=1)
    theirs = torch.ops.torchvision.roi_align(features, rois, 0.25, 3, 3, 1, True)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    weight = torch.rand_like(ours)
    (our_slope,) = torch.autograd.grad((ours * weight).sum(), features)
    (their_slope,) = torch.autograd.grad((theirs * weight).sum(), features)
    torch.testing.assert_close(our_slope, their_slope, atol=1e-4, rtol=1e-4)
