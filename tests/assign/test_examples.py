"""The stand-alone example and the GPU check run, and `rfla.assign` needs torch alone."""

import subprocess
import sys
from pathlib import Path

import assigner_gpu

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*arguments):
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(REPOSITORY)},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_standalone_example():
    output = run("examples/assign_standalone.py")
    assert "image 0: 7 of 13343 points are positive" in output
    assert "box 0 takes the point (716, 732) of stride 8" in output
    assert "0 boxes without a positive" in output


def test_assign_needs_torch_alone():
    """It loads no torchvision, and of the package errors and three files of constants alone."""
    loaded = run("-c", "import rfla.assign, sys; print(*sorted(sys.modules))").split()
    ours = [name for name in loaded if name.split(".")[0] in ("rfla", "torchvision")]
    assert [name for name in ours if not name.startswith("rfla.assign")] == [
        "rfla",
        "rfla.errors",
        "rfla.names",
        "rfla.sizes",
        "rfla.version",
    ]


def test_gpu_check_on_the_cpu():
    """The script itself is sound: with the CPU on both sides nothing differs."""
    assert assigner_gpu.unexplained_differences("points", "kld", "cpu") == (0, 0)
    grid, images = assigner_gpu.make_grid("points", "cpu"), assigner_gpu.make_images(2, 5, "cpu")
    with assigner_gpu.no_waits("cpu"):
        assert assigner_gpu.HierarchicalAssigner().batch(grid, images).shape == (2, len(grid))
    assert assigner_gpu.milliseconds(lambda: None, "cpu", 3) >= 0
    prior = int((assigner_gpu.HierarchicalAssigner()(grid, images[0]) >= 0).nonzero()[0])
    assert isinstance(
        assigner_gpu._near_tie(assigner_gpu.HierarchicalAssigner(), grid, images[0][0], prior), bool
    )
