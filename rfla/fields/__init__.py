"""Receptive fields of any network: traced (what a cell can see) and measured (what it looks at).

Needs torch and numpy alone.
"""

from rfla.fields.measure import (
    Influence,
    MeasuredField,
    fit_gaussian,
    measure_fields,
    measure_influence,
)
from rfla.fields.trace import TracedField, TraceError, trace_fields

__all__ = [
    "Influence",
    "MeasuredField",
    "TraceError",
    "TracedField",
    "fit_gaussian",
    "measure_fields",
    "measure_influence",
    "trace_fields",
]
