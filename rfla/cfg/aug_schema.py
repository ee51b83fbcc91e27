"""What can be set of the augmentation of training images, with Ultralytics' names where they have one.

The defaults suit tiny objects seen from above: any flip and quarter turn, light colour changes, and
a scale that only goes up. Shrinking a 6 px object makes it vanish while the network is still asked
to find it.
"""

from typing import Annotated

from pydantic import Field

from rfla.cfg.base import Section

Probability = Annotated[float, Field(ge=0, le=1)]


class AugConfig(Section):
    """Augmentation of the training images; every key at 0 turns it off."""

    fliplr: Probability = Field(0.5, description="probability of a left-right flip")
    flipud: Probability = Field(0.5, description="probability of an up-down flip")
    rot90: Probability = Field(
        0.5,
        description="probability of a quarter turn; images over twice as long as wide are not turned",
    )
    zoom: Probability = Field(0.5, description="probability of a zoomed crop (scale)")
    scale: float = Field(
        0.5,
        ge=0,
        le=3,
        description="largest zoom minus 1: a crop is magnified by 1 to 1 + scale, never shrunk",
    )
    min_visible: Probability = Field(
        0.4,
        description="share of a box that must be inside a crop; a box cut further becomes an ignored region",
    )
    mosaic: Probability = Field(
        0.0,
        description="probability of a mosaic: windows of four images, none of which is shrunk for it",
    )
    hsv_h: Probability = Field(
        0.015, description="largest change of hue, as a share of the colour circle"
    )
    hsv_s: Probability = Field(0.4, description="largest change of saturation, as a share")
    hsv_v: Probability = Field(0.3, description="largest change of brightness, as a share")
    blur: Probability = Field(0.0, description="probability of a slight blur (3 px)")
    noise: Probability = Field(0.0, description="probability of slight sensor noise")
