"""Initial weights: the statistics of the authors' initialisation, parameter by parameter."""

import pytest
import torch

from rfla.models import build_detector
from rfla.models.mmdet import our_key

RECORDS = {
    "fcos_p2_rfla": "fcos_p2",
    "fcos_p3_rfla": "fcos",
    "autoassign_rfla": "autoassign",
    "retinanet_rfla": "retinanet",
    "faster_rfla": "faster_rcnn",
    "cascade_rfla": "cascade_rcnn",
    "detectors_rfla": "detectors",
}


@pytest.mark.parametrize(
    "record",
    [
        name if name == "fcos_p2_rfla" else pytest.param(name, marks=pytest.mark.slow)
        for name in RECORDS
    ],
)
def test_initial_statistics(parity, record):
    """Constants are equal.

    A random tensor of n values has its mean within 6 and its std within 5 standard errors.
    """
    manifest, _ = parity("init")
    case = next(case for case in manifest["cases"] if case["model"] == record)
    torch.manual_seed(0)
    state = build_detector(RECORDS[record], 8, "rfla").state_dict()
    for key, shape, mean, std, low, high in case["entries"]:
        values = state[our_key(key)].double()
        assert list(values.shape) == shape, key
        if std == 0:
            assert values.min().item() == pytest.approx(low, abs=1e-4), key
            assert values.max().item() == pytest.approx(high, abs=1e-4), key
            continue
        count = values.numel()
        assert abs(values.mean().item() - mean) < 6 * std * (2 / count) ** 0.5, key
        assert values.std(correction=0).item() == pytest.approx(
            std, rel=max(5 / count**0.5, 1e-3)
        ), key
        uniform = (
            high < 2 * std
        )  # of a uniform distribution the largest value is sqrt(3) standard deviations
        assert count < 1000 or (values.max().item() < 2 * std) == uniform, key
