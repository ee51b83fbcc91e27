"""The libraries of the extra `rfla[export]`."""

from typing import Any

from rfla.errors import extra_needed, installed


def require(library: str) -> Any:
    """Import onnx or onnxruntime.

    Raises:
        ConfigError: it is not installed.
    """
    return installed(library, extra_needed("export"))
