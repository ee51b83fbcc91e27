"""`rfla checks`: what is installed, which devices there are, whether the operators really run."""

import importlib.metadata as metadata
import os
import platform
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from rfla.errors import extra_needed

_TORCHVISION_ADVICE = (
    "torch and torchvision do not fit together: install both from the same index, for example "
    "pip install --force-reinstall torch torchvision "
    "--index-url https://download.pytorch.org/whl/cpu"
)


KNOWN_FAULTS = {  # package: (first version without the fault, what the fault is)
    "torch": ((2, 10), "CVE-2026-24747 in its reader of .pth files; rfla import refuses to run"),
    "pillow": ((12, 3), "CVE-2026-4775 and others in its readers of images"),
}


@dataclass
class Report:
    """Findings in the order of looking.

    Attributes:
        lines: (name, what was found, mark). The mark is "ok", "warn", "FAIL", or "-" for what is
            not there and need not be.
    """

    lines: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, name: str, found: str, good: bool = True) -> None:
        """Note one finding."""
        self.lines.append((name, found, "ok" if good else "FAIL"))

    def add_absent(self, name: str, found: str) -> None:
        """Note what is not installed and need not be."""
        self.lines.append((name, found, "-"))

    def warn(self, name: str, found: str) -> None:
        """Note what works, but should be mended."""
        self.lines.append((name, found, "warn"))

    @property
    def good(self) -> bool:
        """Whether nothing is broken."""
        return all(mark != "FAIL" for _, _, mark in self.lines)

    def text(self) -> str:
        """Return one line for each finding, after its mark."""
        width = max(len(name) for name, _, _ in self.lines)
        return "\n".join(f"{mark:<4}  {name:<{width}}  {found}" for name, found, mark in self.lines)


def run_checks() -> Report:
    """Look at the machine, the packages, the operators and the directories. Nothing here raises."""
    report = Report()
    _machine(report)
    _packages(report)
    _known_faults(report)
    _rivals(report)
    _operators(report)
    _devices(report)
    _directories(report)
    return report


def _machine(report: Report) -> None:
    from rfla.version import __version__

    report.add("rfla", f"{__version__} in {Path(__file__).parent}")
    report.add(
        "python", f"{platform.python_version()} in {sys.prefix}", sys.version_info >= (3, 11)
    )
    report.add("system", f"{platform.system()} {platform.release()} {platform.machine()}")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    report.add("cpu", f"{usable} usable of {os.cpu_count()}")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        report.add(
            "memory", f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
        )


def _packages(report: Report) -> None:
    """Compare every requirement of the installed package with what is there."""
    try:
        requirements = metadata.requires("rfla") or []
    except metadata.PackageNotFoundError:
        report.add(
            "requirements", "rfla itself is not installed (pip install .), so they are not known"
        )
        return
    seen: set[str] = set()
    # `dev` repeats what other extras hold; they come first, as the ones that a user would install.
    for requirement in sorted(requirements, key=lambda one: "dev" in one.partition(";")[2]):
        text, _, marker = requirement.partition(";")
        name = re.split(r"[\s<>=!~\[(]", text.strip(), maxsplit=1)[0]
        if name in seen:
            continue
        seen.add(name)
        optional = "extra" in marker
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            if optional:
                extra = marker.partition("extra ==")[2].strip(" '\"")
                report.add_absent(name, f"not installed; optional, {extra_needed(extra)}")
            else:
                report.add(name, f"missing: pip install '{text.strip()}'", False)
            continue
        report.add(name, f"{found} ({text.strip()})", _satisfies(found, text))


def _satisfies(version: str, requirement: str) -> bool:
    """Check the `>=` and `==` bounds of a requirement by their numbers.

    Other bounds are left to pip.
    """
    numbers = _numbers(version)
    for operator, bound in re.findall(r"(>=|==)\s*([\d.]+)", requirement):
        wanted = _numbers(bound)
        if (operator == ">=" and numbers < wanted) or (
            operator == "==" and numbers[: len(wanted)] != wanted
        ):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _known_faults(report: Report) -> None:
    """Warn of versions that a hostile file can harm."""
    for name, (mended, fault) in KNOWN_FAULTS.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:  # `_packages` says so
            continue
        if _numbers(found) < mended:
            wanted = ".".join(map(str, mended))
            report.warn(name, f"{found} has {fault}: pip install -U '{name}>={wanted}'")


def _rivals(report: Report) -> None:
    """Packages that overwrite each other's files, or bring another licence under the same name."""
    installed = {(dist.metadata["Name"] or "").lower() for dist in metadata.distributions()}
    if "albumentationsx" in installed:
        report.add(
            "albumentationsx",
            "replaces albumentations under the same name (AGPL): pip uninstall it",
            False,
        )
    cv2 = sorted(name for name in installed if name.startswith("opencv-"))
    if len(cv2) > 1:
        report.add(
            "opencv",
            f"{', '.join(cv2)} share one directory: keep opencv-python-headless alone",
            False,
        )


def _operators(report: Report) -> None:
    """Run nms, RoIAlign and deformable convolution: importing torchvision does not prove them."""
    try:
        import torch
        from torchvision.ops import deform_conv2d, nms, roi_align

        boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.5, 0.0, 4.5, 4.0], [8.0, 8.0, 12.0, 12.0]])
        kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
        pixels = torch.ones(1, 1, 16, 16)
        pooled = roi_align(pixels, [boxes[:1]], 2)
        moved = deform_conv2d(pixels, torch.zeros(1, 2, 16, 16), torch.ones(1, 1, 1, 1))
    except Exception as error:  # a broken installation fails in many ways
        report.add("torchvision ops", f"{str(error).splitlines()[0]}; {_TORCHVISION_ADVICE}", False)
        return
    right = kept == [0, 2] and pooled.eq(1).all().item() and moved.eq(1).all().item()
    report.add(
        "torchvision ops",
        "nms, roi_align and deform_conv2d run" if right else "wrong results",
        bool(right),
    )


def _devices(report: Report) -> None:
    try:
        import torch
    except Exception:  # already reported by `_operators`
        return
    report.add("threads", f"{torch.get_num_threads()} of torch")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            half = "bfloat16" if device.major >= 8 else "float16"
            report.add(
                f"device={index}",
                f"{device.name}, {device.total_memory / 2**30:.0f} GiB, amp in {half}",
            )
    elif torch.backends.mps.is_available():
        report.add("device", "mps")
    else:
        built = torch.version.cuda
        report.add(
            "device",
            f"cpu (torch is built for CUDA {built}, but no GPU answers)" if built else "cpu",
        )


def _directories(report: Report) -> None:
    try:
        from rfla.data.data_yaml import cache_directory, dataset_directories
    except Exception as error:
        report.add("rfla.data", str(error).splitlines()[0], False)
        return
    found = [str(path) for path in dataset_directories() if path.is_dir()]
    report.add("data sets", ", ".join(found) or "no directory yet; RFLA_DATASETS names one")
    cache = cache_directory()
    nearest = next((path for path in (cache, *cache.parents) if path.exists()), Path("/"))
    writable = os.access(nearest, os.W_OK)
    report.add(
        "cache", f"{cache}{'' if writable else ' cannot be written: set XDG_CACHE_HOME'}", writable
    )
