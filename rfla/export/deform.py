"""Deformable convolution in ONNX, which torch's exporter does not know.

ONNX has the operator since opset 19.
"""

from typing import Any

import torch
from torch.onnx import symbolic_helper

from rfla.errors import ConfigError

OPSET = 19


def register() -> None:
    """Teach the exporter to write torchvision's operator as ONNX's."""
    write_as = torch.onnx.register_custom_op_symbolic  # type: ignore[attr-defined]
    write_as("torchvision::deform_conv2d", _deform_conv, OPSET)


def check_opset(detector: str, opset: int) -> None:
    """Refuse a version of ONNX that lacks an operator of a detector.

    Raises:
        ConfigError: with the version that has it.
    """
    if detector == "detectors" and opset < OPSET:
        raise ConfigError(
            f"opset={opset}: detectors needs DeformConv, which ONNX has since opset {OPSET}"
        )


@symbolic_helper.parse_args(
    *("v", "v", "v", "v", "v"), *("i", "i", "i", "i", "i", "i"), *("i", "i", "b")
)
def _deform_conv(
    g: Any,
    features: Any,
    weight: Any,
    offset: Any,
    mask: Any,
    bias: Any,
    stride_y: int,
    stride_x: int,
    padding_y: int,
    padding_x: int,
    dilation_y: int,
    dilation_x: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Any:
    inputs = (
        [features, weight, offset, bias, mask] if use_mask else [features, weight, offset, bias]
    )
    return g.op(
        "DeformConv",
        *inputs,
        strides_i=[stride_y, stride_x],
        pads_i=[padding_y, padding_x, padding_y, padding_x],
        dilations_i=[dilation_y, dilation_x],
        group_i=groups,
        offset_group_i=offset_groups,
    )
