"""k-means of equal work: ours, scikit-learn's Lloyd and faiss from the same centres, as many iterations, same inertia.

python -m benchmarks.speed.kmeans [--rounds 5] [--shape N Z K ITERATIONS]

Each does ITERATIONS updates of the centres and then assigns all vectors once more. Ours and scikit-learn also subtract
the mean of the vectors before and add it again after; faiss does not.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import kmeans_plusplus

from benchmarks.speed.roofs import measure_roofs
from benchmarks.speed.timing import Work, alternate, check_equal, machine, ratio, shown, table
from medstrata.learning.comm import ALONE
from medstrata.learning.kmeans import Settings, _lloyd, _start, centred

SHAPES = ((100_000, 64, 10, 5), (100_000, 128, 100, 3), (500_000, 64, 100, 1), (50_000, 256, 1000, 1))
MANY = 100  # clusters from which on a shape counts towards the target
TOLERANCE = 1e-4  # of the inertia
TARGETS = {"scikit-learn": 2.0, "faiss": 0.9}
Run = Callable[[NDArray[np.float32], NDArray[np.float32], int], float]  # vectors, centres, iterations -> inertia


@dataclass(frozen=True)
class Task:
    """Vectors (N, Z), the centres (K, Z) to start from, the number of iterations."""

    vectors: NDArray[np.float32]
    centres: NDArray[np.float32]
    iterations: int

    @property
    def flops(self) -> float:
        """Multiplications and additions of the products of vectors and centres alone."""
        return 2.0 * (self.iterations + 1) * len(self.vectors) * self.centres.size


def make_task(shape: tuple[int, int, int, int]) -> Task:
    """Normal vectors about K / 2 places that overlap, started at K of the vectors."""
    count, size, n_clusters, iterations = shape
    rng = np.random.default_rng(0)
    places = rng.normal(0, 1, (max(2, n_clusters // 2), size)).astype(np.float32)
    vectors = rng.standard_normal((count, size), np.float32)
    vectors += places[rng.integers(len(places), size=count)]
    return Task(vectors, vectors[rng.choice(count, n_clusters, replace=False)], iterations)


def ours(vectors: NDArray[np.float32], centres: NDArray[np.float32], iterations: int) -> float:
    """As ``medstrata.learning.kmeans.kmeans`` does with one start."""
    about_mean = centred(torch.from_numpy(vectors))
    settings = Settings(len(centres), 1, iterations, ALONE)
    return _lloyd(about_mean, torch.from_numpy(centres) - about_mean.offset, settings).inertia


def by_sklearn(vectors: NDArray[np.float32], centres: NDArray[np.float32], iterations: int) -> float:
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(len(centres), init=centres, n_init=1, max_iter=iterations, tol=0.0, algorithm="lloyd")
        return float(model.fit(vectors).inertia_)


def by_faiss(vectors: NDArray[np.float32], centres: NDArray[np.float32], iterations: int) -> float:
    import faiss  # type: ignore[import-not-found]

    faiss.omp_set_num_threads(1)
    model: Any = faiss.Kmeans(
        vectors.shape[1],
        len(centres),
        niter=iterations,
        min_points_per_centroid=1,
        max_points_per_centroid=len(vectors),  # by default it would draw 256 for each centre
    )
    model.train(vectors, init_centroids=centres)
    return float(model.index.search(vectors, 1)[0].sum(dtype=np.float64))


RUNS: dict[str, Run] = {"ours": ours, "scikit-learn": by_sklearn, "faiss": by_faiss}


def compare(task: Task, runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each round.

    Raises
    ------
    ValueError : the inertias lie apart, so the work was not equal
    """
    found: dict[str, float] = {}

    def work(name: str) -> Work:
        def run() -> None:
            found[name] = runs[name](task.vectors, task.centres, task.iterations)

        return run

    seconds = alternate({name: work(name) for name in runs}, rounds)
    check_equal(found, TOLERANCE)
    return seconds


def report_starts(shapes: list[tuple[int, int, int, int]], rounds: int) -> str:
    """Compare one draw of greedy k-means++ centres, as many candidates each; both draw at random, so not the same."""
    rows = []
    for shape in shapes:
        task = make_task(shape)
        n_clusters = len(task.centres)

        def own(task: Task = task, n_clusters: int = n_clusters) -> None:
            about_mean = centred(torch.from_numpy(task.vectors))
            _start(about_mean, Settings(n_clusters, 1, 0, ALONE), torch.Generator().manual_seed(0))

        def theirs(task: Task = task, n_clusters: int = n_clusters) -> None:
            kmeans_plusplus(task.vectors, n_clusters, random_state=0)

        seconds = alternate({"ours": own, "scikit-learn": theirs}, rounds)
        found = ratio(seconds["scikit-learn"], seconds["ours"])
        place = f"{shape[0]:,} x {shape[1]}, K = {shape[2]}"
        rows.append([place, shown(median(seconds["ours"])), shown(median(seconds["scikit-learn"])), found])
    return table(("k-means++ starts", "ours, CPU s", "scikit-learn, CPU s", "ratio"), rows)


def report(shapes: list[tuple[int, int, int, int]], rounds: int, peak: float) -> str:
    """Compare on all ``shapes``; ``peak``: FLOP/s of a matrix product."""
    rows = []
    many: dict[str, list[float]] = {name: [] for name in TARGETS}
    for shape in shapes:
        task = make_task(shape)
        seconds = compare(task, RUNS, rounds)
        own = median(seconds["ours"])
        cells: list[object] = [f"{shape[0]:,} x {shape[1]}, K = {shape[2]}, {shape[3]} iterations", shown(own)]
        for name in TARGETS:
            found = ratio(seconds[name], seconds["ours"])
            cells += [shown(median(seconds[name])), found]
            if shape[2] >= MANY:
                many[name].append(found.middle)
        rows.append([*cells, f"{task.flops / own / peak:.0%}"])
    header = ("shape", "ours, CPU s", "scikit-learn, CPU s", "ratio", "faiss, CPU s", "ratio", "ours, of matmul peak")
    lines = [
        f"Median over the shapes with K >= {MANY}: {shown(median(ratios))} times as fast as {name} "
        f"(target {TARGETS[name]:g}: {'reached' if median(ratios) >= TARGETS[name] else 'missed'})."
        for name, ratios in many.items()
        if ratios
    ]
    return "\n".join([table(header, rows), "", *lines])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.kmeans")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shape", type=int, nargs=4, metavar=("N", "Z", "K", "ITERATIONS"), help="only this one")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(machine() + "\n")
    peak = measure_roofs().matmul
    shapes = [tuple(given.shape)] if given.shape else list(SHAPES)
    print(report(shapes, given.rounds, peak) + "\n")
    print(report_starts(shapes, given.rounds))


if __name__ == "__main__":
    main()
