"""Print the shell lines of the README block that carries a mark: CI runs what is written there.

A block is marked by the comment line before it: `<!-- ci: demo -->`.
"""

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def block(mark: str) -> str:
    """Return the lines of the block after `<!-- ci: mark -->`."""
    found = re.search(
        rf"<!-- ci: {re.escape(mark)} -->\n```(?:sh|bash)\n(.*?)```", README.read_text(), re.DOTALL
    )
    if found is None:
        raise SystemExit(f"README.md has no block marked 'ci: {mark}'")
    return found.group(1)


if __name__ == "__main__":
    print(block(sys.argv[1]), end="")
