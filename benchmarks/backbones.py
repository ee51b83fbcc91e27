"""Print what every backbone costs alone and how far it sees: the table of docs/models.md.

    python benchmarks/backbones.py

Parameters and operations for one image of 800 x 800 px, as `rfla info backbone=NAME` counts them,
and the traced fields of the maps (`rfla.fields`). Nothing is computed or downloaded; needs
rfla[timm], and some minutes.
"""

import torch

from rfla.cfg.backbone_names import BACKBONE_FAMILIES
from rfla.cfg.model_schema import BackboneConfig
from rfla.fields import trace_fields
from rfla.models.backbones.build import build_backbone
from rfla.models.cost import backbone_cost

OF_TIMM = (
    *("timm/tf_efficientnet_lite0", "timm/mobilenetv4_conv_small", "timm/convnext_atto"),
    *("timm/convnextv2_nano", "timm/repvit_m1", "timm/hgnetv2_b0", "timm/pvt_v2_b1"),
    *("timm/mambaout_femto", "timm/swinv2_tiny_window8_256", "timm/hrnet_w18_small"),
)


def fields(name: str) -> str:
    """Sides (px) of the fields of C2 to C5."""
    with torch.device("meta"):
        net = build_backbone(BackboneConfig(name=name, frozen_stages=-1))
    found = trace_fields(net)[-4:]
    sides = ["unbounded" if field.unbounded else f"{field.side:g}" for field in found]
    return sides[0] if len(set(sides)) == 1 else ", ".join(sides)


def main() -> None:
    print(
        "| family | `backbone=` | parameters | GFLOPs | maps from stride | channels | fields, px |"
    )
    print("|---|---|---|---|---|---|---|")
    for family, names in [*BACKBONE_FAMILIES.items(), ("timm, some of them", OF_TIMM)]:
        for name in names:
            cost = backbone_cost(name)
            channels = ", ".join(map(str, cost.channels[-4:]))
            print(
                f"| {family} | `{name}` | {cost.parameters / 1e6:.2f} M | {cost.gflops:.1f} | "
                f"{cost.strides[0]} | {channels} | {fields(name)} |",
                flush=True,
            )
            family = ""


if __name__ == "__main__":
    main()
