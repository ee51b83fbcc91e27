"""`python -m rfla` is `rfla`, and what `torchrun -m rfla` starts."""

import sys

from rfla.cli import main

if __name__ == "__main__":
    sys.exit(main())
