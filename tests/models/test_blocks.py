"""Group norm of the heads: how many groups."""

import pytest

from rfla.models.blocks import GroupNormReLU


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (48, 16), (32, 16), (24, 8), (8, 4)])
def test_groups_have_more_than_one_channel(channels: int, groups: int) -> None:
    assert GroupNormReLU(channels).num_groups == groups
