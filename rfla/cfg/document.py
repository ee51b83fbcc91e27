"""Settings as text: `args.yaml` of a run, and the files that are generated from the schema.

`python -m rfla.cfg.document` writes `default.yaml`, `docs/configuration.md` and `keywords.py`; a
test compares them with the schema.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from rfla.cfg.keys import Key, keys_of, show
from rfla.cfg.keys_used import groups
from rfla.cfg.keyword_types import keywords_py
from rfla.cfg.schema import Config
from rfla.cfg.verbs import OPTIONS
from rfla.errors import ConfigError
from rfla.files import write_atomically

DEFAULT_YAML = Path(__file__).parent / "default.yaml"
KEYWORDS_PY = Path(__file__).parent / "keywords.py"
CONFIGURATION_MD = Path(__file__).parents[2] / "docs" / "configuration.md"


def to_yaml(config: Config) -> str:
    """Return all settings, and which were given, as YAML that `cfg=` and `load_saved` read."""
    values = {"given": sorted(config.given)} | json.loads(config.model_dump_json())
    return yaml.dump(
        values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120
    )


def default_yaml() -> str:
    """Return the text of `default.yaml`: every key with its default, kind and meaning."""
    lines = [
        "# Every setting of rfla with its default. Generated from rfla/cfg/schema.py: do not edit.",
        "# A model YAML and the recommendations of a data YAML change some of them;",
        "# 'rfla cfg model=... data=...' shows the result, and 'rfla copy-cfg' writes a file to",
        "# start from.",
    ]
    for section, title, keys in groups():
        lines += ["", f"# --- {title}"]
        if section:
            lines.append(f"{section}:")
        indent = "  " if section else ""
        lines += [_yaml_line(f"{indent}{key.name.rpartition('.')[2]}", key) for key in keys]
    return "\n".join(lines) + "\n"


def settings_template() -> str:
    """Return a settings file in which every key is a comment with its default.

    A file that sets every key would also undo what the model YAML sets, so each is to be
    uncommented by hand.
    """
    lines = [
        "# Settings for rfla: uncomment the lines that you want to change, and pass this file as",
        "# cfg=FILE. All other keys follow the model, the data set, and the defaults shown here.",
    ]
    for _, title, keys in groups():
        lines += ["", f"# --- {title}"]
        lines += [f"# {_yaml_line(key.name, key)}" for key in keys]
    return "\n".join(lines) + "\n"


def write_template(path: Path | str, overwrite: bool = False) -> None:
    """Write `settings_template()` to a new file.

    Raises:
        ConfigError: the file exists already, or cannot be written.
    """
    if not overwrite and os.path.lexists(path):
        raise ConfigError(
            f"{path} exists already; give another one (out=my.yaml), or overwrite=true"
        )
    try:
        write_atomically(path, settings_template())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})"
        ) from None


def _yaml_line(name: str, key: Key) -> str:
    return f"{f'{name}: {_yaml_value(key.default)}':<34}  # {key.description} ({key.kind})"


def _yaml_value(value: Any) -> str:
    plain = json.loads(json.dumps(value))  # tuples to lists
    return str(yaml.dump(plain, default_flow_style=True, width=200)).removesuffix("...\n").strip()


def configuration_markdown() -> str:
    """Return the text of `docs/configuration.md`."""
    lines = [
        "# Configuration",
        "",
        "Every key of `train`, `val` and `predict`, then those of the other verbs, generated from",
        "`rfla/cfg/schema.py` and `rfla/cfg/verbs.py` by `python -m rfla.cfg.document`.",
        "[cli.md](cli.md) explains how settings are given and which one wins. The defaults are",
        "those of the schema; a model YAML changes some.",
    ]
    for section, title, keys in groups():
        lines += ["", f"## {section}: {title}" if section else f"## {title}", "", *_table(keys)]
    lines += ["", "## The other verbs", "", "Each has keys of its own."]
    for verb, options in OPTIONS.items():
        keys = [key for key in keys_of(options).values() if not key.section]
        lines += ["", f"### rfla {verb}", "", *_table(keys)]
    return "\n".join(lines) + "\n"


def _table(keys: Iterable[Key]) -> list[str]:
    rows = [
        f"| `{key.name}` | `{show(key.default)}` | {key.kind} | {_cell(key.description)} |"
        for key in keys
    ]
    return ["| key | default | kind | meaning |", "|---|---|---|---|", *rows]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write the generated files."""
    DEFAULT_YAML.write_text(default_yaml(), encoding="utf-8")
    CONFIGURATION_MD.write_text(configuration_markdown(), encoding="utf-8")
    KEYWORDS_PY.write_text(keywords_py(), encoding="utf-8")


if __name__ == "__main__":
    main()
