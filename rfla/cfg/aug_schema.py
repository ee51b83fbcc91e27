"""The settings of augmentation: one typed, documented field for each key."""

from typing import Annotated

from pydantic import Field

from rfla.cfg.base import Section

Probability = Annotated[float, Field(ge=0, le=1)]


class AugConfig(Section):
    """Augmentation of the training images; every key at 0 turns it off.

    The names are those of Ultralytics where it has one. The defaults suit tiny objects seen from
    above: any flip and quarter turn, light colour changes, and a scale that only goes up. A 6 px
    object that is shrunk disappears while the network is still asked to find it.
    """

    fliplr: Probability = Field(0.5, description="probability of a left-right flip")
    flipud: Probability = Field(0.5, description="probability of an up-down flip")
    rot90: Probability = Field(
        0.5,
        description="probability of a quarter turn; never for images over twice as long as wide",
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
        description="least visible share of a box in a crop; below it the box is an ignored region",
    )
    mosaic: Probability = Field(
        0.0,
        description="probability of a mosaic of windows of four images, at their own scale",
    )
    close_mosaic: float = Field(
        0.0,
        ge=0,
        description="last epochs without mosaics: a share of epochs=, or from 1 on their number",
    )
    hsv_h: Probability = Field(
        0.015, description="largest change of hue, as a share of the colour circle"
    )
    hsv_s: Probability = Field(0.4, description="largest change of saturation, as a share")
    hsv_v: Probability = Field(0.3, description="largest change of brightness, as a share")
    blur: Probability = Field(0.0, description="probability of a slight blur (3 px)")
    noise: Probability = Field(0.0, description="probability of slight sensor noise")
