"""The weight recipe and the input image of the parity records.

They are described in `../shared/parity/models/*/manifest.json`, `recipe`.
"""

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

WEAK = {"conv_reg", "conv_centerness", "retina_reg", "rpn_reg", "fc_reg"}


def fan_in(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[1:]))


def _values(key: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> np.ndarray:
    random = np.random.RandomState(zlib.crc32(key.encode()))
    count = int(np.prod(shape)) if shape else 1
    if key.endswith("running_var"):
        return 0.5 + random.random_sample(count)
    if key.endswith("center_prior.sigma"):
        return 1 + 0.1 * random.random_sample(count)
    mean, std = _mean_and_std(key, shape, shapes)
    return mean + std * random.standard_normal(count)


def _mean_and_std(
    key: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[float, float]:
    """Of the normal values of an entry: the first rule that matches wins."""
    if key.endswith(("running_mean", "center_prior.mean")):
        return 0.0, 0.1
    if key.endswith(("weight_gamma", "weight_beta")):
        root = fan_in(shapes[key.rsplit("weight_", 1)[0] + "weight"]) ** 0.5
        return (1 / root, 0.1 / root) if key.endswith("gamma") else (0.0, 0.01 / root)
    if key.endswith("weight_diff"):
        return 0.0, 0.1 / fan_in(shape) ** 0.5
    if len(shape) == 0:
        return 1.0, 0.1
    if key.endswith("conv_reg.bias"):
        return 1.0, 0.2
    if len(shape) == 1:
        return (0.0, 0.05) if key.endswith("bias") else (1.0, 0.1)
    weak = ".offset_s." in key or ".offset_l." in key or key.split(".")[-2] in WEAK
    return 0.0, (0.2 if weak else 1.0) / fan_in(shape) ** 0.5


def recipe_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A state dict with the official keys, filled by the recipe.

    Args:
        shapes: official key to shape, e.g. from `state_dict.json`: `{e[0]: tuple(e[1]) for e in
            state["entries"]}`.
    """
    state = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros(shape, dtype=torch.int64)
        else:
            values = _values(key, shape, shapes).reshape(shape).astype(np.float32)
            state[key] = torch.from_numpy(np.ascontiguousarray(values)).reshape(shape)
    return state


def recipe_image(batch: int = 1, height: int = 256, width: int = 320) -> Tensor:
    """The records' network input (batch, 3, height, width): a closed formula, not normalised."""
    b, c, i, j = np.ogrid[:batch, :3, :height, :width]
    image = (
        np.sin(0.05 * (c + 1) * i + 0.3 * b)
        + np.cos(0.07 * (c + 2) * j - 0.2 * b)
        + 0.5 * np.sin(0.011 * (c + 1) * i * j / 10 + b)
    )
    return torch.from_numpy(image.astype(np.float32))


def samples(tensor: Tensor, count: int = 8) -> Tensor:
    """The values that a summary in a record samples."""
    flat = tensor.detach().flatten()
    return torch.stack([flat[int((k + 0.5) * flat.numel() / count)] for k in range(count)])
