"""Hostile files by the hundred: whatever a file holds, the answer is one line, soon, in bounds.

    python tests/attack/test_fuzz.py TARGET COUNT [SEED]     # more of one target, by hand

A finding is repeated by the same target and seed; its files are kept in `findings`.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

if __name__ == "__main__":
    import conftest  # noqa: F401
import binaries
import micro
import targets
from harness import Case, attack

from rfla.cli import main
from rfla.models import zoo

# Target -> cases in a test; together about a minute on one core.
COUNTS = {
    "settings": 300,
    "tokens": 300,
    "data_yaml": 250,
    "coco": 300,
    "predictions": 150,
    "list": 100,
    "conversion": 400,
    "image": 800,
    "weights": 25,
    "checkpoint": 400,
}


def trained_model(directory: Path) -> bytes:
    """Train the micro detector for an epoch and return its weights file."""
    for path, content in targets.DATA_FILES.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
    model = ["model=fcos", "backbone=resnet18", "neck.width=16", "head.width=16", "head.depth=1"]
    where = [f"data={directory}/data.yaml", f"project={directory}/runs", "name=x", "plots=false"]
    run = ["epochs=1", "batch=2", "workers=0", "device=cpu", "pretrained=false", "imgsz=64"]
    assert main(["train", *model, *where, *run]) == 0
    return (directory / "runs" / "x" / "weights" / "best.safetensors").read_bytes()


def cases_of(target: str, directory: Path, seed: int = 0) -> Callable[[int], Case]:
    """Return what makes the case of a number."""
    if target == "weights":
        (directory / "model").mkdir()
        make = binaries.make_weights_of(trained_model(directory / "model"))
    else:
        module = binaries if hasattr(binaries, f"make_{target}") else targets
        make = getattr(module, f"make_{target}")
    return lambda number: make(Random(f"{seed}/{target}/{number}"))


@pytest.mark.slow
@pytest.mark.parametrize("target", COUNTS)
def test_hostile_files_are_refused(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(zoo.DETECTORS, "fcos", micro.MicroFCOS)
    assert attack(target, cases_of(target, tmp_path), COUNTS[target], tmp_path) == []


if __name__ == "__main__":
    micro.install()
    folder = Path(tempfile.mkdtemp(prefix="attack-"))
    name, number, *seed = sys.argv[1:]
    seen: dict[str, int] = {}
    for finding in attack(name, cases_of(name, folder, *map(int, seed)), int(number), folder):
        place = finding.text if finding.kind != "traceback" else finding.text[-160:]
        seen[place] = seen.get(place, 0) + 1
        if seen[place] == 1:
            print(finding.number, finding.kind, finding.text)
    print(f"{len(seen)} kinds of findings, {sum(seen.values())} cases; files in {folder}/findings")
