"""What one core can do at most: float32 products of matrices by three libraries, and copies of memory.

python -m benchmarks.speed.roofs [--rounds 7]

torch multiplies matrices with MKL and convolves with oneDNN, numpy multiplies with OpenBLAS. On processors that are not
Intel's they may lie far apart; the roof is the best of the three.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch.nn.functional import linear

from benchmarks.speed.timing import Work, alternate, machine, table

SIDE = 2048
COPIED = 1 << 26  # float32 numbers, 256 MiB: far more than any cache


@dataclass(frozen=True)
class Roofs:
    """``products``: FLOP/s by library; ``copy``: bytes/s read and written. Medians, per CPU second of one core."""

    products: dict[str, float]
    copy: float

    @property
    def matmul(self) -> float:
        """FLOP/s of the best library."""
        return max(self.products.values())


def measure_roofs(rounds: int = 7) -> Roofs:
    """Measure all roofs, alternated, on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    left, right, out = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE), torch.empty(SIDE, SIDE)
    products: dict[str, Work] = {
        "torch (MKL)": lambda: torch.mm(left, right, out=out),
        "numpy (OpenBLAS)": lambda: np.matmul(left.numpy(), right.numpy(), out=out.numpy()),
    }
    if torch.backends.mkldnn.is_available():
        blocked = left.to_mkldnn(), right.to_mkldnn(), torch.zeros(SIDE).to_mkldnn()
        products["torch (oneDNN)"] = lambda: linear(*blocked)
    source, target = torch.ones(COPIED), torch.zeros(COPIED)
    seconds = alternate({**products, "copy": lambda: target.copy_(source)}, rounds)
    rates = {name: 2.0 * SIDE**3 / median(seconds[name]) for name in products}
    return Roofs(rates, 2.0 * source.nbytes / median(seconds["copy"]))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.roofs")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args(arguments)
    print(machine() + "\n")
    roofs = measure_roofs(given.rounds)
    rows = [(f"float32 {SIDE}^3, {name}", f"{rate / 1e9:.0f} GFLOP/s") for name, rate in roofs.products.items()]
    rows.append(("copy of 256 MiB, read and written", f"{roofs.copy / 1e9:.1f} GB/s"))
    print(table(("roof, one core", "rate"), rows))


if __name__ == "__main__":
    main()
