"""What to say when a data set is not on this machine: where to get it, what to run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def missing_dataset_message(name: str, root: Path, what: Path, info: Mapping[str, Any]) -> str:
    """Return the message for a data set whose files are not there.

    Args:
        name: Bare name of the data set.
        root: Directory that it is looked for in.
        what: The file or directory that is missing.
        info: The keys `obtain`, `licence` and `command` of its data YAML; `{path}` in the command
            is the directory.
    """
    obtain = str(info.get("obtain", "")).strip()
    if not obtain:
        return (
            f"data={name}: {what} does not exist; set `path:` in the data YAML, or the directory "
            "RFLA_DATASETS"
        )
    lines = [
        f"data={name}: {what} does not exist. To obtain it:",
        *(f"  {line.strip()}" for line in obtain.splitlines()),
    ]
    if info.get("licence"):
        lines.append(f"  Licence: {str(info['licence']).strip()}")
    if info.get("command"):
        command = str(info["command"]).strip().replace("{path}", _quoted(root))
        lines += ["Then run, with DIR where you unpacked it:", f"  {command}"]
    lines.append(
        f"It is looked for in {root}; RFLA_DATASETS=DIRECTORY makes that DIRECTORY/{root.name}."
    )
    return "\n".join(lines)


def _quoted(path: Path) -> str:
    text = str(path)
    return f"'{text}'" if " " in text else text
