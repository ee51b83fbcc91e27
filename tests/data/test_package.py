"""The names of `rfla.data`, and what its verbs wait for when they start."""

import subprocess
import sys

import rfla.data


def test_every_public_name_has_a_home():
    for name in rfla.data.__all__:
        assert getattr(rfla.data, name).__module__.startswith("rfla.data.")
    assert set(rfla.data._HOME_OF) == set(rfla.data.__all__)


def test_convert_and_inspect_do_not_wait_for_torch():
    tools = "rfla.tools.convert.command, rfla.tools.aitod, rfla.tools.inspect"
    program = f"import sys, {tools}; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
