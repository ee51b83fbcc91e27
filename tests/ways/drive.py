"""Run the real command in forked children of a process that has torch: starts take milliseconds.

Signals, loading processes and exit codes are those of the `rfla` command.
"""

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

import rfla.cli
import rfla.engine.trainer
import rfla.engine.validator
import rfla.predict.predictor

SECONDS = 120  # for any command, on a busy machine


class Command:
    """One command line in a session of its own, with its output in a file.

    Args:
        tokens: Verb and settings.
        log: Where to write the output; its directory is where the command runs.
        largest_file: Bytes beyond which the disk takes no more of a file; None: it takes all.
    """

    def __init__(self, tokens: Sequence[str], log: Path, largest_file: int | None = None) -> None:
        self.log = log
        self.tokens = list(tokens)
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._become_the_command(largest_file)

    def _become_the_command(self, largest_file: int | None) -> None:
        code = 70
        try:
            os.setsid()
            output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
            sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
            torch.set_num_threads(1)
            os.chdir(self.log.parent)
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
            sys.argv = ["rfla", *self.tokens]
            code = rfla.cli.main()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait(self, seconds: float = SECONDS) -> int:
        """Return the exit code; fail where the command takes longer."""
        until = time.monotonic() + seconds
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > until:
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError(f"{self.tokens[0]} hangs after {seconds} s: {self.output}")
            time.sleep(0.01)
        assert "Traceback" not in self.output, self.output
        return self.code

    def wait_for(self, text: str) -> None:
        """Wait until the output has this text."""
        until = time.monotonic() + SECONDS
        while text not in self.output:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            assert not pid, f"ended with {status} before '{text}': {self.output}"
            assert time.monotonic() < until, f"no '{text}' after {SECONDS} s: {self.output}"
            time.sleep(0.01)

    def stop(self, number: signal.Signals) -> int:
        """Send a signal as a terminal does, to every process of the session; the exit code.

        Fails where the command takes more than 3 seconds to end, or leaves a process behind.
        """
        if number == signal.SIGINT:
            os.killpg(self.pid, number)
        else:
            os.kill(self.pid, number)
        start = time.monotonic()
        code = self.wait()
        seconds = time.monotonic() - start
        assert seconds < SECONDS_TO_END, f"ended {seconds:.1f} s after {number.name}"
        assert self.left_behind() == []
        return code

    def left_behind(self) -> list[int]:
        """Processes of the session that are still there half a second later."""
        time.sleep(0.5)
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                state, _, _, session = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:4]
            except OSError:  # it has ended meanwhile
                continue
            if int(session) == self.pid and state != "Z":
                found.append(int(entry.name))
        return found


SECONDS_TO_END = 3 * (4 if os.getloadavg()[0] > 2 * (os.cpu_count() or 1) else 1)
"""A busy machine gets more time."""
