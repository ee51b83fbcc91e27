"""What can be set, and how it is put together. Nothing of torch is imported here.

The names below are imported when they are first used, so that a module of this package can be had
alone.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rfla.cfg.load import (
        load_config,
        load_saved,
        model_config,
        model_part,
        saved_model_config,
        with_settings,
    )
    from rfla.cfg.schema import Config

__all__ = [
    "Config",
    "load_config",
    "load_saved",
    "model_config",
    "model_part",
    "saved_model_config",
    "with_settings",
]


def __getattr__(name: str) -> Any:
    """Import one of the public names (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'rfla.cfg' has no attribute {name!r}")
    from importlib import import_module

    module = "rfla.cfg.schema" if name == "Config" else "rfla.cfg.load"
    return getattr(import_module(module), name)
