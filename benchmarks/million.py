"""A million images through the whole of ``medstrata run``: seconds and the largest anonymous memory of each stage.

    python -m benchmarks.million FOLDER [--images 1000000] [--side 64] [--method dcec] [--clusters 10]

Images are handwritten digits (``mnist_train60k.npz`` of ``$MEDSTRATA_DATA``), doubled in size, somewhere in noise.
FOLDER needs twice the size of the array (8.2 GB). What is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results.sets import data_folder

STAGES = ("scan", "plan", "decode", "fit", "assign", "run")  # ``run`` does what is left: validate, explain, report
AT_ONCE = 10_000
EVERY = 0.5  # seconds between two looks at the memory


def make(file: Path, count: int, side: int) -> None:
    """Write ``count`` images (N, side, side) uint8 into an .npy file, block by block."""
    digits = np.load(data_folder() / "mnist_train60k.npz")["images"].reshape(-1, 28, 28)
    factor = max(1, side // 32)
    large = 28 * factor
    part = file.with_suffix(".part")
    target = np.lib.format.open_memmap(part, "w+", np.uint8, (count, side, side))
    for start in range(0, count, AT_ONCE):
        random = np.random.default_rng(start)
        some = min(AT_ONCE, count - start)
        block = random.integers(0, 20, (some, side, side), dtype=np.uint8)
        chosen = digits[random.integers(len(digits), size=some)].repeat(factor, 1).repeat(factor, 2)
        for image, digit, (down, right) in zip(
            block, chosen, random.integers(0, side - large + 1, (some, 2)), strict=True
        ):
            place = image[down : down + large, right : right + large]
            np.maximum(place, digit, out=place)
        target[start : start + some] = block
    target.flush()
    part.rename(file)


def anonymous_bytes(root: int) -> int:
    """Return the anonymous resident memory of process ``root`` and of all that it started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    waiting, total = [root], 0
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, [])
        try:
            lines = Path("/proc", str(process), "status").read_text().splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
    return total


def measured(arguments: list[str]) -> dict[str, Any]:
    """Run ``medstrata`` with these arguments; return wall and CPU seconds and the peak of its anonymous memory."""
    before = os.times()
    started, peak = time.monotonic(), 0
    process = subprocess.Popen([sys.executable, "-m", "medstrata", *arguments], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(EVERY)
    if process.returncode:
        raise SystemExit(f"medstrata {arguments[0]} ended with {process.returncode}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall": time.monotonic() - started, "cpu": cpu, "peak": peak}


def main() -> None:
    """Make the images, do each stage, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--method", default="dcec")
    parser.add_argument("--clusters", default="10")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    source, out = given.folder / f"{given.images}x{given.side}.npy", given.folder / f"{given.method}-{given.images}"
    if not source.exists():
        make(source, given.images, given.side)
    options = {"plan": ["--clusters", given.clusters, "--method", given.method]}
    lines = out.parent / f"{out.name}.jsonl"
    done = [json.loads(line)["stage"] for line in lines.read_text().splitlines()] if lines.exists() else []
    for stage in [stage for stage in STAGES if stage not in done]:
        inputs = [str(source)] if stage in ("scan", "run") else []
        found = {"stage": stage, **measured([stage, *inputs, str(out), *options.get(stage, [])])}
        with lines.open("a") as file:
            file.write(json.dumps(found) + "\n")
    print("| stage | CPU seconds | wall seconds | peak anonymous memory, GB |\n|---|---|---|---|")
    for line in lines.read_text().splitlines():
        one = json.loads(line)
        print(f"| {one['stage']} | {one['cpu']:.0f} | {one['wall']:.0f} | {one['peak'] / 1e9:.2f} |")
    print(f"\nreport.html: {(out / 'report.html').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
