"""Time the hierarchical assigner against two honest alternatives and print Markdown tables.

    python benchmarks/assigner.py                   # everything, about ten minutes on an idle core
    python benchmarks/assigner.py --boxes 10 100    # a part

Loop: for every box and every j <= k, compare the row of scores with its j-th best value (the
authors' way, but with at most 100 rows in memory). Dense: all of it vectorised, chunked to 48 MiB.
Ours and each rival run in turn in one process; a ratio is the median over such pairs, a time the
median of its runs. The results must be equal.

On one thread the clock is the CPU time of the process, so that other work on the machine does not
count as such; on several threads it is the wall clock.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from rfla.assign import HierarchicalAssigner, PriorGrid, receptive_field_distance
from rfla.assign.chunks import chunks

STRIDES = (4, 8, 16, 32, 64)
FIELDS = (35, 91, 267, 427, 555)
TOPK, DECAY, IGNORE_ABOVE = (3, 1), 0.9, 0.8
ROWS = 100


def make_grid(kind: str, size: int) -> PriorGrid:
    sizes = [(-(-size // stride), -(-size // stride)) for stride in STRIDES]
    build = PriorGrid.points if kind == "points" else PriorGrid.anchors
    grid = build(sizes, STRIDES, FIELDS)
    _ = (
        grid.boxes,
        grid.scaled(DECAY).boxes,
    )  # a detector keeps its grids: building them is not timed
    return grid


def make_boxes(count: int, size: int, seed: int = 0) -> Tensor:
    """Boxes of 2 to 40 px, log-uniform, as AI-TOD has them."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator) * size
    side = torch.exp(torch.rand(count, 2, generator=generator) * 3 + 0.7)
    return torch.cat((centre - side / 2, centre + side / 2), dim=1)


def loop(grid: PriorGrid, boxes: Tensor, distance: str) -> Tensor:
    """The authors' loops: boxes, then the k best values of each."""
    matched = torch.full((len(grid),), -1)
    stages = ((grid.scaled(DECAY).boxes, TOPK[1], IGNORE_ABOVE), (grid.boxes, TOPK[0], None))
    for fields, k, ignore_above in stages:
        nearest = torch.zeros(len(grid))
        claims = matched.clone()
        for start in range(0, len(boxes), ROWS):
            scores = receptive_field_distance(boxes[start : start + ROWS], fields, distance)
            best = scores.topk(k, dim=1).values
            if ignore_above is not None:
                nearest = torch.maximum(nearest, scores.amax(dim=0))
            for i in range(len(scores)):
                for j in range(k):
                    claims[scores[i] == best[i, j]] = start + i
        matched = (
            claims
            if ignore_above is None
            else torch.where((nearest >= ignore_above) & (claims < 0), -2, claims)
        )
    return matched


def dense(grid: PriorGrid, boxes: Tensor, distance: str) -> Tensor:
    """The same without loops over boxes or k, a bounded number of rows at a time."""
    matched = torch.full((len(grid),), -1)
    index = torch.arange(len(boxes))[:, None]
    for fields, k, ignore_above in (
        (grid.scaled(DECAY).boxes, TOPK[1], IGNORE_ABOVE),
        (grid.boxes, TOPK[0], None),
    ):
        winner, band = torch.full_like(matched, -1), torch.zeros(len(grid), dtype=torch.bool)
        for part in chunks(len(boxes), len(grid) * 4 * 8):
            scores = receptive_field_distance(boxes[part], fields, distance)
            claimed = scores >= scores.topk(k, dim=1).values[:, -1:]
            winner = torch.maximum(winner, torch.where(claimed, index[part], -1).amax(dim=0))
            if ignore_above is not None:
                band |= (scores >= ignore_above).any(dim=0)
        matched[band] = -2
        matched = torch.where(winner >= 0, winner, matched)
    return matched


def timed(call: Callable[[], object]) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    call()
    return clock() - start


def pairs(
    ours: Callable[[], Tensor], rival: Callable[[], Tensor], repeats: int
) -> tuple[float, float, float]:
    """Median seconds of ours and of the rival, and the median of the paired ratios.

    The results must be equal.
    """
    expected = ours()
    mine, theirs = [], []
    for _ in range(repeats):
        mine.append(
            min(timed(ours) for _ in range(5))
        )  # ours is so short that one interruption would be all of it
        kept: list[Tensor] = []
        theirs.append(timed(lambda kept=kept: kept.append(rival())))
        assert torch.equal(kept[0], expected)
    ratio = statistics.median(b / a for a, b in zip(mine, theirs, strict=True))
    return statistics.median(mine), statistics.median(theirs), ratio


def against_rivals(
    kind: str, distance: str, counts: list[int], repeats: int, loop_limit: int
) -> list[str]:
    grid, assigner = (
        make_grid(kind, 800),
        HierarchicalAssigner(distance, TOPK, DECAY, ignore_above=IGNORE_ABOVE),
    )
    rows = []
    for count in counts:
        boxes = make_boxes(count, 800)
        mine, cells = 0.0, []
        for rival in (loop, dense):
            if rival is loop and count > loop_limit:
                cells += ["", ""]
                continue
            runs = repeats if count <= 100 else 1
            mine, theirs, ratio = pairs(
                partial(assigner, grid, boxes), partial(rival, grid, boxes, distance), runs
            )
            cells += [f"{theirs * 1e3:,.0f} ms", f"{ratio:,.0f}"]
        cells = [f"{mine * 1e3:.2f} ms", *cells]
        rows.append(
            f"| {kind} | {distance} | {torch.get_num_threads()} | {count:,} | "
            + " | ".join(cells)
            + " |"
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def write_result(codes: Tensor, meaning: Tensor) -> Tensor:
    """What any assigner must do for its (P,) result: clear it and fill it."""
    return meaning.index_select(0, torch.zeros_like(codes))


def over_image_sizes(repeats: int) -> list[str]:
    """Time over image size, beside the time of writing a (P,) result alone."""
    rows = []
    for size in (800, 1600, 3200):
        for kind in ("points", "anchors"):
            grid = make_grid(kind, size)
            meaning, codes = torch.arange(1000), torch.zeros(len(grid), dtype=torch.int64)
            write = statistics.median(
                timed(partial(write_result, codes, meaning)) for _ in range(4 * repeats)
            )
            cells = []
            for count in (100, 1000):
                boxes, assigner = make_boxes(count, 800), HierarchicalAssigner()
                call = partial(assigner, grid, boxes)
                call()
                cells.append(
                    f"{statistics.median(timed(call) for _ in range(4 * repeats)) * 1e3:.2f} ms"
                )
            rows.append(
                f"| {size} | {kind} | {len(grid):,} | {' | '.join(cells)} | {write * 1e3:.2f} ms |"
            )
    return rows


def batch_against_single(repeats: int) -> list[str]:
    grid, assigner = make_grid("anchors", 800), HierarchicalAssigner()
    rows = []
    for count in (20, 100, 500):
        boxes = [make_boxes(count, 800, seed) for seed in range(16)]
        together, single, ratio = pairs(
            lambda b=boxes: assigner.batch(grid, b),
            lambda b=boxes: torch.stack([assigner(grid, one) for one in b]),
            repeats,
        )
        rows.append(f"| {count} | {together * 1e3:.1f} ms | {single * 1e3:.1f} ms | {ratio:.2f} |")
    return rows


def peak_memory(kind: str, count: int) -> float:
    """MiB that one call adds to the resident memory at most (Linux)."""
    grid, boxes, assigner = make_grid(kind, 800), make_boxes(count, 800), HierarchicalAssigner()
    assigner(grid, boxes[:10])
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far

    def kib(field: str) -> int:
        line = next(
            line
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith(field)
        )
        return int(line.split()[1])

    before = kib("VmRSS")
    assigner(grid, boxes)
    return (kib("VmHWM") - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--boxes", type=int, nargs="+", default=[10, 100, 500, 1000, 2000, 5000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--distances", nargs="+", default=["kld", "wd"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--loop-limit", type=int, default=1000, help="most boxes that the loop is asked to do"
    )
    parser.add_argument("--parts", nargs="+", default=["rivals", "sizes", "batch", "memory"])
    args = parser.parse_args()

    if "memory" in args.parts:
        for kind in ("points", "anchors"):
            print(
                f"Peak extra memory at 2,000 boxes, {kind}: {peak_memory(kind, 2000):.1f} MiB.\n",
                flush=True,
            )
    if "rivals" in args.parts:
        rivals(args)
    torch.set_num_threads(args.threads[0])
    if "sizes" in args.parts:
        print(
            "\n| image | priors | P | 100 boxes | 1,000 boxes | writing (P,) alone |\n"
            "|---|---|---|---|---|---|"
        )
        print("\n".join(over_image_sizes(args.repeats)), flush=True)
    if "batch" in args.parts:
        print("\n| boxes of each of 16 images | one batch | 16 calls | times |\n|---|---|---|---|")
        print("\n".join(batch_against_single(args.repeats)), flush=True)


def rivals(args: argparse.Namespace) -> None:
    """The full range of boxes once.

    100 and 1,000 boxes show what another distance or thread changes.
    """
    print("| priors | distance | threads | boxes | ours | loop | times | dense | times |")
    print("|---|---|---|---|---|---|---|---|---|")
    for threads in args.threads:
        torch.set_num_threads(threads)
        for distance in args.distances:
            first = (threads, distance) == (args.threads[0], args.distances[0])
            counts = (
                args.boxes if first else [count for count in args.boxes if count in (100, 1000)]
            )
            for kind in ("points", "anchors"):
                print(
                    "\n".join(
                        against_rivals(kind, distance, counts, args.repeats, args.loop_limit)
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
