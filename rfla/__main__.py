"""The `rfla` command, and `python -m rfla`, which is what `torchrun -m rfla` starts."""

import os
import signal
import sys


def main() -> int:
    """Run the command line of this process; return its exit code.

    Importing it takes a moment, and who interrupts that is not shown where it was.
    """
    signal.signal(signal.SIGINT, _leave)
    from rfla.cli import main as run  # which handles signals from here on

    return run()


def _leave(number: int, frame: object) -> None:
    os.write(2, b"stopped\n")
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
