"""Shared fixtures: where the recorded parity cases are, and how to read one folder of them."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
# Processes that a test spawns import its module by name. Last: the installed package is the one
# that is tested.
sys.path.append(str(REPOSITORY))


def records_path() -> Path:
    """`$RFLA_PARITY`, or `../shared/parity` beside the checkout."""
    return Path(os.environ.get("RFLA_PARITY", REPOSITORY.parent / "shared" / "parity"))


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """The folder of records made with the authors' code.

    Without it the test is reported as skipped.
    """
    path = records_path()
    if not path.is_dir():
        pytest.skip(f"no parity records at {path}; set RFLA_PARITY")
    return path


@pytest.fixture(scope="session")
def parity(parity_dir: Path) -> Callable[[str], tuple[dict, dict]]:
    """Read one folder of records: `manifest, tensors = parity("hie_assigner")`."""
    from safetensors.torch import load_file

    def read(name: str) -> tuple[dict, dict]:
        folder = parity_dir / name
        tensors = folder / "data.safetensors"
        return json.loads((folder / "manifest.json").read_text()), load_file(
            tensors
        ) if tensors.exists() else {}

    return read
