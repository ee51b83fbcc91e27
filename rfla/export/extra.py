"""The libraries of the extra `rfla[export]`."""

from importlib import import_module
from typing import Any

from rfla.errors import ConfigError, extra_needed


def require(library: str) -> Any:
    """Import onnx or onnxruntime.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(library)
    except ImportError:
        raise ConfigError(f"{library} is not installed; {extra_needed('export')}") from None
