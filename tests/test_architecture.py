"""The shape of the package: imports run one way, libraries keep to their files, files are small."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "rfla"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400

# What each part may import of the others; errors and files are for all. The order is that of
# docs/architecture.md.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "files": set(),
    "version": set(),
    "json_columns": set(),
    "json_file": set(),
    "sizes": set(),
    "names": set(),
    "terminal": set(),
    "stop_signals": set(),
    "cfg": set(),
    "ops": set(),
    "assign": set(),
    "fields": set(),
    "data": {"cfg"},
    "models": {"cfg", "ops", "assign", "fields"},
    "metrics": {"cfg", "data", "pictures"},
    "pictures": set(),
    "results": {"pictures"},
    "engine": {"cfg", "ops", "assign", "data", "models", "metrics", "pictures", "results"},
    "export": {"cfg", "ops", "assign", "data", "models", "engine"},
    "predict": {
        *("cfg", "ops", "data", "models", "metrics", "pictures", "results", "engine"),
        "export",
    },
    "tools": {"cfg", "assign", "fields", "data", "models", "metrics", "pictures", "engine"},
    "api": {"cfg", "data", "models", "metrics", "results", "engine", "predict", "export", "tools"},
    "checks": {"data"},
    "cli": {
        *("cfg", "data", "models", "metrics", "engine", "predict", "export", "tools"),
        *("api", "checks", "terminal"),
    },
    "__main__": {"cli"},
    "__init__": {"api"},
}
FOR_ALL = {
    "errors",
    "files",
    "json_columns",
    "json_file",
    "names",
    "sizes",
    "stop_signals",
    "version",
}

# Recommended settings stand in the data YAML, which the data package finds and reads; which pixels
# a network of timm wants is known to timm alone.
EXCEPTIONS = {
    ("cfg/layer_files.py", "rfla.data.spec"),
    ("cfg/backbones.py", "rfla.models.backbones.timm_networks"),
}

# Libraries that one could want to replace: only these files know them.
ONLY_IN: dict[str, set[str]] = {
    "albumentations": {"data/transforms.py"},
    "faster_coco_eval": {"metrics/reference.py"},
    # its error class alone: official checkpoints are opened without running them
    "pickle": {"models/checkpoint_file.py"},
    "pickletools": {"models/pickle_check.py"},
    "pycocotools": {"metrics/reference.py"},
    "rasterio": {"data/scenes.py", "data/georeference.py"},
    "safetensors": {"models/weights.py", "models/backbone_file.py", "engine/checkpoint.py"},
    "supervision": {"results.py"},
    "timm": {"models/backbones/timm_networks.py"},
    "typer": {"cli.py"},
}
# Libraries that belong to a part of the package.
ONLY_BENEATH: dict[str, set[str]] = {
    "matplotlib": {"pictures", "metrics"},
    "msgspec": {"json_columns.py", "json_file.py", "data", "metrics"},
    "pydantic": {"cfg"},
    "pydantic_core": {"cfg"},
    "torchvision": {"ops", "models", "export", "checks.py"},
}
NEVER = {
    "ultralytics",
    "sahi",
    "mmdet",
    "mmcv",
    "albumentationsx",
    "lightning",
    "dill",
    "cloudpickle",
}


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function.

    Type-checking imports count too.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    part = part_of(path)
    assert part in MAY_IMPORT, f"{part} is a new part: say in MAY_IMPORT what it may import"
    for module in imports_of(path):
        if module.split(".")[0] != "rfla" or (name_of(path), module) in EXCEPTIONS:
            continue
        target = [*module.split("."), "__init__"][1]
        allowed = MAY_IMPORT[part] | FOR_ALL | {part}
        assert target in allowed, (
            f"{name_of(path)} imports {module}; {part} may import {sorted(allowed)}"
        )


def test_the_parts_have_an_order() -> None:
    """No part can, over others, import itself."""

    def reachable(part: str, seen: frozenset[str] = frozenset()) -> set[str]:
        assert part not in seen, f"a circle through {part}"
        direct = MAY_IMPORT[part]
        return direct.union(*(reachable(other, seen | {part}) for other in direct))

    for part in MAY_IMPORT:
        assert part not in reachable(part)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_libraries_stay_where_they_belong(path: Path) -> None:
    for module in imports_of(path):
        library = module.split(".")[0]
        assert library not in NEVER, f"{name_of(path)} imports {library}"
        if library in ONLY_IN:
            assert name_of(path) in ONLY_IN[library], f"{library} belongs in {ONLY_IN[library]}"
        if library in ONLY_BENEATH:
            assert path.relative_to(PACKAGE).parts[0] in ONLY_BENEATH[library], (
                f"{library} in {name_of(path)}"
            )


def test_the_assigner_needs_torch_alone() -> None:
    """`rfla.assign` can be taken elsewhere: it needs torch, and errors, names and sizes."""
    for path in (PACKAGE / "assign").rglob("*.py"):
        for module in imports_of(path):
            library = module.split(".")[0]
            known = library in sys.stdlib_module_names or library == "torch"
            assert known or module.startswith(
                ("rfla.assign", "rfla.errors", "rfla.names", "rfla.sizes")
            ), f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_stay_small(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES, f"{name_of(path)} has {lines} lines; at most {MAX_LINES}"
    assert path.stem not in {"utils", "helpers", "misc", "common"}, "name a file by what is in it"


def file_of(module: str) -> Path | None:
    """The file of a module of this package; None for a name in one, or another package."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def files_imported_by(path: Path) -> set[Path]:
    """Every file of this package that a file imports, wherever in it and for whatever reason.

    `from rfla.data import Batch` imports `rfla/data/__init__.py`; `from rfla.engine import memory`
    imports `rfla/engine/memory.py` alone: a package with an empty `__init__` has no part in it.
    """
    found: set[Path | None] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {file_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {file_of(f"{node.module}.{alias.name}") for alias in node.names}
            found |= names - {None} if None not in names else names | {file_of(node.module)}
    return {file for file in found if file is not None and file != path}


def circles() -> list[list[str]]:
    """Sets of files that import each other, directly or over others (Tarjan's algorithm)."""
    imports = {path: files_imported_by(path) for path in FILES}
    number: dict[Path, int] = {}
    lowest: dict[Path, int] = {}
    stack: list[Path] = []
    found: list[list[str]] = []

    def visit(path: Path) -> None:
        number[path] = lowest[path] = len(number)
        stack.append(path)
        for other in imports[path]:
            if other not in number:
                visit(other)
            if other in stack:
                lowest[path] = min(lowest[path], lowest[other])
        if lowest[path] == number[path]:
            circle = stack[stack.index(path) :]
            del stack[stack.index(path) :]
            if len(circle) > 1:
                found.append(sorted(name_of(file) for file in circle))

    for path in FILES:
        if path not in number:
            visit(path)
    return found


def test_no_files_import_each_other() -> None:
    """No circle between files, imports for type checking and inside functions included."""
    assert circles() == []
