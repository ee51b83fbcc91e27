"""The networks of torchvision that can be a backbone, by family."""

# Without regnet_y_128gf, which is too large for any detector.
BACKBONE_FAMILIES = {
    "ResNet": ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    "ResNeXt": ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    "Wide ResNet": ("wide_resnet50_2", "wide_resnet101_2"),
    "RegNet": (
        *("regnet_x_400mf", "regnet_x_800mf", "regnet_x_1_6gf", "regnet_x_3_2gf"),
        *("regnet_x_8gf", "regnet_x_16gf", "regnet_x_32gf"),
        *("regnet_y_400mf", "regnet_y_800mf", "regnet_y_1_6gf", "regnet_y_3_2gf"),
        *("regnet_y_8gf", "regnet_y_16gf", "regnet_y_32gf"),
    ),
    "ConvNeXt": ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large"),
    "EfficientNet": (
        *(f"efficientnet_b{size}" for size in range(8)),
        *("efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l"),
    ),
    "MobileNetV3": ("mobilenet_v3_small", "mobilenet_v3_large"),
    "Swin": ("swin_t", "swin_s", "swin_b"),
    "Swin v2": ("swin_v2_t", "swin_v2_s", "swin_v2_b"),
}
TIMM = "timm/"  # before the name of a network of timm
