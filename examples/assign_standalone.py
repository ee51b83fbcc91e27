"""The label assignment of RFLA in another detector: of this package it needs `rfla.assign` alone.

python examples/assign_standalone.py
"""

import torch

from rfla.assign import HierarchicalAssigner, PriorGrid, resnet_receptive_fields

# What your detector has: feature maps of P3 to P7 for an 800 x 800 input, on a ResNet-50.
feature_sizes = [(100, 100), (50, 50), (25, 25), (13, 13), (7, 7)]
strides = [8, 16, 32, 64, 128]

# One Gaussian for each point of them. Keep the grid for as long as the input size stays.
fields = resnet_receptive_fields(depth=50, levels=[3, 4, 5, 6, 7])
grid = PriorGrid.points(feature_sizes, strides, fields, fraction=0.5)

# What your data loader gives: boxes x1, y1, x2, y2 in px of the input, one tensor for each image.
images = [
    torch.tensor([[100.0, 100.0, 108.0, 110.0], [300.5, 40.0, 306.0, 52.0]]),
    torch.tensor([[700.0, 710.0, 732.0, 760.0]]),
]

assigner = HierarchicalAssigner(distance="kld", topk=(3, 1), decay=0.9)
matched = assigner.batch(grid, images)  # (2, P): index of the box, -1 background, -2 ignored

for index, row in enumerate(matched):
    positive = (row >= 0).nonzero().squeeze(1)
    print(f"image {index}: {len(positive)} of {len(grid)} points are positive")
    for point in positive.tolist():
        x, y = grid.centers[point].tolist()
        stride = strides[grid.level_index[point]]
        print(f"  box {row[point]} takes the point ({x:g}, {y:g}) of stride {stride}")

print(assigner.explain(grid, images[0]))
