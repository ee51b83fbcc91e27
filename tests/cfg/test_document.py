"""What is generated from the schema is what is in the repository, and says what the schema says."""

from pathlib import Path

import yaml

from rfla.cfg import Config, document, load_config
from rfla.cfg.base import Section
from rfla.cfg.keys import keys_of, sections_of
from rfla.cfg.verbs import OPTIONS

REPOSITORY = Path(__file__).resolve().parents[2]
ADVICE = "out of date: run `python -m rfla.cfg.document`"


def test_default_yaml_is_up_to_date() -> None:
    assert (REPOSITORY / "rfla/cfg/default.yaml").read_text(
        encoding="utf-8"
    ) == document.default_yaml(), ADVICE


def test_configuration_page_is_up_to_date() -> None:
    page = (REPOSITORY / "docs/configuration.md").read_text(encoding="utf-8")
    assert page == document.configuration_markdown(), ADVICE


def test_default_yaml_holds_the_defaults() -> None:
    """Given as `cfg=`, it changes nothing."""
    given = load_config({"cfg": str(document.DEFAULT_YAML)})
    assert given.model_dump() == load_config({}).model_dump()
    assert given.given == set(keys_of(Config))


def test_every_key_is_in_the_page_and_the_template() -> None:
    page, template = document.configuration_markdown(), document.settings_template()
    for key in keys_of(Config).values():
        assert f"| `{key.name}` |" in page
        assert f"\n# {key.name}: " in template


def test_the_template_is_comments_and_every_comment_is_a_setting() -> None:
    lines = document.settings_template().splitlines()
    assert all(line.startswith("#") or not line for line in lines)
    settings = [line.removeprefix("# ") for line in lines if "  # " in line]
    values = yaml.safe_load("\n".join(settings))
    assert set(values) == set(keys_of(Config))


def test_every_key_is_documented() -> None:
    for schema in (Config, *OPTIONS.values()):
        for key in keys_of(schema).values():
            assert len(key.description) > 8, key.name
            assert key.description.endswith("...") or not key.description.endswith("."), (
                f"{key.name}: not a phrase"
            )
            assert (
                "\n" not in key.description and "Literal" not in key.kind and "<" not in key.kind
            ), key.name


def test_every_default_is_valid_and_typed() -> None:
    """Defaults are checked like given values (`validate_default`), in every section."""
    for schema in (Config, *OPTIONS.values()):
        assert issubclass(schema, Section)
        schema()
        assert schema.model_config["extra"] == "forbid" and schema.model_config["frozen"]


def test_groups_hold_every_key_once() -> None:
    names = [key.name for _, _, keys in document.groups() for key in keys]
    assert sorted(names) == sorted(keys_of(Config))
    assert {section for section, _, _ in document.groups()} - {""} == set(sections_of(Config))
