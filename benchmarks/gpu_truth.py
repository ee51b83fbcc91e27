"""Everything that only a GPU can tell, in one call: correctness first, then speed.

    python benchmarks/gpu_truth.py --out DIR                        # all parts, about 12 minutes
    python benchmarks/gpu_truth.py --out DIR --only check --seconds 280     # a first run
    python benchmarks/gpu_truth.py --out DIR --device cpu --imgsz 64        # a trial without a GPU

Each part is a process of its own with a time limit, so that one that hangs, crashes or loses the
device's context takes no other with it. `gpu_truth.json` and `gpu_truth.md` are written anew after
every part. The parts stand in the order in which they are worth having.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Part:
    """One process: `arguments` after the Python interpreter, and its limit in seconds."""

    name: str
    arguments: tuple[str, ...]
    seconds: int


@dataclass
class Outcome:
    """How a part ended: `ok`, `failed` or `too long`; its last line of output; its seconds."""

    name: str
    state: str
    said: str
    seconds: float


def parts_of(device: str, imgsz: int, out: Path) -> list[Part]:
    """All parts, the most telling first."""
    checks = str(HERE / "gpu_checks.py")

    def check(name: str, seconds: int) -> Part:
        given = (checks, name, "--device", device, "--imgsz", str(imgsz))
        return Part(f"check {name}", given, seconds)

    speed = ("--device", "cuda:0" if device == "cuda" else "cpu")
    if device == "cpu":
        speed += ("--imgsz", str(imgsz), "--batch", "1", "--steps", "1", "--models", "fcos")
    else:
        speed += ("--batch", "16", "--seconds", "200")
    assigner = (str(HERE / "assigner_gpu.py"), "--device", device)
    return [
        Part("check assigner", assigner + (("--repeats", "2") if device == "cpu" else ()), 60),
        check("norm", 60),
        check("steps", 90),
        check("overflow", 30),
        check("deterministic", 120),
        check("nan", 30),
        check("waits", 40),
        check("detections", 40),
        check("memory", 40),
        check("distributed", 40),
        check("command", 120),
        check("compiled", 120),
        Part(
            "speed of training",
            (str(HERE / "train_gpu.py"), *speed, "--out", str(out / "train_gpu.json")),
            240,
        ),
        Part(
            "speed of prediction",
            (
                checks,
                "prediction",
                "--device",
                device,
                *(("--imgsz", str(imgsz)) if device == "cpu" else ("--imgsz", "800")),
            ),
            60,
        ),
    ]


def run_part(part: Part, limit: float) -> Outcome:
    """Run one part to its end or to its limit."""
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *part.arguments], capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        text = output.decode(errors="replace") if isinstance(output, bytes) else output
        return Outcome(part.name, "too long", _tail(text), time.perf_counter() - start)
    seconds = time.perf_counter() - start
    if done.returncode:
        return Outcome(part.name, "failed", _tail(done.stdout + done.stderr), seconds)
    return Outcome(part.name, "ok", done.stdout.strip(), seconds)


def _tail(text: str) -> str:
    """The last lines, where an error says what it is."""
    return "\n".join(text.strip().splitlines()[-8:])


def write(out: Path, outcomes: list[Outcome]) -> None:
    """Write both reports."""
    rows = [asdict(outcome) for outcome in outcomes]
    (out / "gpu_truth.json").write_text(json.dumps(rows, indent=1))
    lines = ["| part | ended | seconds |", "|---|---|---|"]
    lines += [f"| {one.name} | {one.state} | {one.seconds:.0f} |" for one in outcomes]
    for one in outcomes:
        lines += ["", f"## {one.name}: {one.state}", "", "```", one.said, "```"]
    (out / "gpu_truth.md").write_text("\n".join(lines) + "\n")


def main(arguments: list[str] | None = None) -> list[Outcome]:
    """Run the parts in order; return how each ended."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="directory of the reports")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--imgsz", type=int, default=320, help="px of the checks")
    parser.add_argument("--only", default="", help="parts whose name begins with this")
    parser.add_argument("--seconds", type=float, default=720, help="time for all parts")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)

    outcomes: list[Outcome] = []
    ends_at = time.perf_counter() + options.seconds
    for part in parts_of(options.device, options.imgsz, options.out):
        if not part.name.startswith(options.only):
            continue
        left = ends_at - time.perf_counter()
        if left < 5:
            outcomes.append(Outcome(part.name, "no time left", "", 0.0))
        else:
            outcomes.append(run_part(part, min(part.seconds, left)))
        write(options.out, outcomes)
        print(f"{part.name}: {outcomes[-1].state}, {outcomes[-1].seconds:.0f} s", flush=True)
    return outcomes


if __name__ == "__main__":
    main()
