"""The modules beside this file, and a trained model of a few kilobytes to attack."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for `import harness`
sys.path.insert(0, str(HERE.parent / "engine"))  # for `import micro`
