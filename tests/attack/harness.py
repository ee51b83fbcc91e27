"""Run hostile inputs in forked children with bounds on time, memory and files.

A case is good when the command line ends with 0, 1 or 2 and no traceback, within seconds and a
gibibyte, sends no control characters to the terminal and leaves no file outside its directory.
"""

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rfla.cli import main
from rfla.errors import RflaError

SECONDS = 15  # of processor time for one case
PATIENCE = 120  # seconds in which even a busy machine gives them
MEMORY = 1 << 30  # bytes that one case may add to the resident memory
ADDRESS_SPACE = 3 << 30  # bytes that a child may map beyond what it has
FILE_SIZE = 64 << 20
CASES_PER_CHILD = 50
CONTROL = {chr(code) for code in range(32)} - {"\n", "\t", "\r"}


class TooLong(BaseException):
    """A case took too long; no handler of the package catches it."""


@dataclass(frozen=True)
class Case:
    """Files to write into an empty directory, and what to do there.

    Attributes:
        files: Path below the directory -> content.
        command: Tokens of the command line, run in the directory.
        call: What to do in place of a command; gets the directory.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    call: Callable[[Path], object] | None = None


@dataclass(frozen=True)
class Finding:
    """A case that is no good."""

    target: str
    number: int
    kind: str
    text: str


def attack(name: str, case_of: Callable[[int], Case], count: int, directory: Path) -> list[Finding]:
    """Run `count` cases of a target and return those that are no good.

    Args:
        name: Of the target.
        case_of: Makes the case of a number.
        count: How many.
        directory: Where to work; the directories of bad cases stay in `findings` below it.
    """
    findings: list[Finding] = []
    done = 0
    while done < count:
        numbers = range(done, min(done + CASES_PER_CHILD, count))
        report = directory / f"{name}.report"
        report.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            _run_child(name, case_of, numbers, directory, report)
        status = _wait(child, report)
        rows = [json.loads(line) for line in report.read_text().splitlines()]
        started = [row[0] for row in rows if row[1] == "start"]
        finished = {row[0]: row for row in rows if row[1] != "start"}
        bad = [row for row in finished.values() if row[1] != "good"]
        findings += [Finding(name, number, kind, text) for number, kind, text in bad]
        lost = [number for number in started if number not in finished]
        for number in lost:
            findings.append(Finding(name, number, "crash", f"the process ended with {status}"))
            _keep(directory, name, number)
        done = started[-1] + 1 if started else numbers.stop
    return findings


def _wait(child: int, report: Path) -> int:
    """Return the exit code of a child.

    An alarm does not end a case within one call of C, so the child is killed where no line was
    added to its report for too long.
    """
    size, since = 0, time.monotonic()
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if report.exists() and report.stat().st_size > size:
            size, since = report.stat().st_size, time.monotonic()
        if time.monotonic() - since > PATIENCE + 10:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)


def _run_child(
    name: str, case_of: Callable[[int], Case], numbers: range, directory: Path, report: Path
) -> None:
    """Run some cases and write a line at the start and at the end of each; never returns."""
    try:
        _set_limits()
        with report.open("a", buffering=1) as file:
            for number in numbers:
                file.write(json.dumps([number, "start"]) + "\n")
                kind, text = run_case(case_of(number), directory / "case")
                if kind != "good":
                    _keep(directory, name, number)
                file.write(json.dumps([number, kind, text[:400]]) + "\n")
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _set_limits() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    mapped = pages * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (mapped, mapped))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def too_long(*_: object) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, too_long)
    signal.signal(signal.SIGPROF, too_long)


def run_case(case: Case, directory: Path) -> tuple[str, str]:
    """Run one case in an empty directory: ("good", "") or what is wrong."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for path, content in case.files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
    os.chdir(directory)
    around = set(os.listdir(directory.parent))
    before = _peak_memory()
    code, output = 0, io.StringIO()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(PATIENCE)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            if case.call is None:
                code = main(list(case.command))
            else:
                case.call(directory)
    except (RflaError, OSError) as error:  # the command line makes one line of either
        output.write(str(error))
    except TooLong:
        return "too long", f"more than {SECONDS} s of processor time, or {PATIENCE} s"
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return "traceback", f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    printed = output.getvalue()
    if case.call is None and CONTROL & set(printed):
        return "control characters", ascii(printed[-200:])
    return _judge(directory, code, printed, before, around)


def _judge(
    directory: Path, code: int, output: str, before: int, around: set[str]
) -> tuple[str, str]:
    """Say what is wrong after a case that ended."""
    if code not in (0, 1, 2):
        return "exit code", f"{code}: {output[-200:]}"
    if "Traceback" in output:
        return "traceback", output[-200:]
    grown = _peak_memory() - before
    if grown > MEMORY:
        return "memory", f"{grown >> 20} MiB"
    outside = set(os.listdir(directory.parent)) - around
    if outside:
        return "written outside", str(sorted(outside))
    if (directory / "canary").exists():
        return "executed", "the canary was touched"
    return "good", ""


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _keep(directory: Path, name: str, number: int) -> None:
    """Keep the files of a bad case."""
    kept = directory / "findings" / f"{name}-{number}"
    shutil.copytree(directory / "case", kept, dirs_exist_ok=True, symlinks=True)
