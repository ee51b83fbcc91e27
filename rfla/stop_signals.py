"""The signals that end a run, as Ctrl-C does."""

import signal

# Ctrl-C, a kill, a closed terminal, and the notices of batch systems before they kill: SIGUSR1, and
# SIGXCPU where the processor time is over. Windows has the first two.
STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU")
    if hasattr(signal, name)
)
