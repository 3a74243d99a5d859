"""Benchmarks of speed: fair rounds, equal work, tables, FLOPs. Nothing here measures time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.speed import __main__ as everything
from benchmarks.speed import augmentation, fit, kmeans, startup, steps, timing, training
from benchmarks.speed.roofs import Roofs
from benchmarks.speed.timing import Ratio, alternate, check_equal, ratio, table


class Clock:
    """A clock that stands still but when it is moved."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: list[float]) -> Any:
        """Work that takes the next of ``seconds`` each time."""
        left = iter(seconds)

        def run() -> None:
            self.order.append(name)
            self.now += next(left)

        return run


def test_contestants_take_turns_in_both_orders_and_the_warm_up_is_not_counted() -> None:
    clock = Clock()
    works = {"a": clock.work("a", [90, 1, 2, 3]), "b": clock.work("b", [80, 4, 4, 6])}
    assert alternate(works, 3, clock) == {"a": [1, 2, 3], "b": [4, 4, 6]}
    assert "".join(clock.order) == "ba" + "ab" + "ba" + "ab"


def test_ratios_are_taken_within_rounds() -> None:
    assert ratio([4.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == Ratio(2.0, 2.0, 4.0)
    assert str(Ratio(2.0, 0.51234, 1234.5)) == "2 [0.512 to 1234]"
    with pytest.raises(ValueError, match="longer"):
        ratio([1.0], [1.0, 2.0])


def test_unequal_work_is_refused() -> None:
    check_equal({"ours": 1000.0, "peer": 1000.05}, 1e-4)
    check_equal({"ours": -1000.0, "peer": -999.95}, 1e-4)
    with pytest.raises(ValueError, match=r"Not equal work.*ours 1000, peer 1000\.2"):
        check_equal({"ours": 1000.0, "peer": 1000.2}, 1e-4)
    with pytest.raises(ValueError, match="Not equal work"):
        check_equal({"ours": 1.0, "peer": float("nan")}, 1e-4)


def test_a_table_is_markdown_with_three_digits() -> None:
    text = table(("what", "rate"), [("ours", 1234.5), ("peer", 0.012345), ("words", "2 of 3"), ("whole", 7)])
    assert text.splitlines() == [
        "| what | rate |",
        "| --- | --- |",
        "| ours | 1234 |",
        "| peer | 0.0123 |",
        "| words | 2 of 3 |",
        "| whole | 7 |",
    ]


def test_the_machine_is_described_without_its_name(tmp_path: Path) -> None:
    information = tmp_path / "cpuinfo"
    information.write_text("model name\t: Some Chip\ncpu family\t: 26\nflags\t\t: fpu avx2 avx512f avx512_bf16\n")
    assert timing._processor(information) == "Some Chip (family 26; avx2 avx512f avx512_bf16)"
    information.write_text("model name\t: Old Chip\ncpu family\t: 6\nflags\t\t: fpu sse2\n")
    assert timing._processor(information) == "Old Chip (family 6; no AVX2)"
    said = timing.machine()
    assert f"{os.cpu_count()} cores" in said and "torch" in said
    assert os.uname().nodename not in said and "/" not in said.replace("AVX/", "")


def test_the_roof_is_the_best_library() -> None:
    assert Roofs({"a": 1.0, "b": 3.0, "c": 2.0}, 5.0).matmul == 3.0


def test_k_means_of_ours_and_of_scikit_learn_end_at_the_same_inertia() -> None:
    task = kmeans.make_task((600, 5, 4, 3))
    assert task.vectors.shape == (600, 5) and task.centres.shape == (4, 5) and task.vectors.dtype == np.float32
    assert task.flops == 2 * 4 * 600 * 5 * 4
    taken = kmeans.compare(task, {"ours": kmeans.ours, "scikit-learn": kmeans.by_sklearn}, rounds=2)
    assert {name: len(seconds) for name, seconds in taken.items()} == {"ours": 2, "scikit-learn": 2}


def test_k_means_that_stops_earlier_is_not_compared() -> None:
    def lazy(vectors: Any, centres: Any, iterations: int) -> float:
        return kmeans.ours(vectors, centres, iterations - 1)

    with pytest.raises(ValueError, match="Not equal work"):
        kmeans.compare(kmeans.make_task((600, 5, 4, 3)), {"ours": kmeans.ours, "lazy": lazy}, rounds=1)


def test_the_table_of_k_means_has_only_large_shapes_in_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(task: kmeans.Task, runs: Any, rounds: int) -> dict[str, list[float]]:
        large = len(task.centres) >= kmeans.MANY
        return {"ours": [1.0], "scikit-learn": [3.0 if large else 0.1], "faiss": [0.5]}

    monkeypatch.setattr(kmeans, "compare", taken)
    text = kmeans.report([(200, 4, 10, 1), (200, 4, 100, 1)], 1, peak=1e6)
    assert "| 200 x 4, K = 10, 1 iterations | 1 | 0.1 | 0.1 [0.1 to 0.1] | 0.5 | 0.5 [0.5 to 0.5] | 3% |" in text
    assert "Median over the shapes with K >= 100: 3 times as fast as scikit-learn (target 2: reached)." in text
    assert "Median over the shapes with K >= 100: 0.5 times as fast as faiss (target 0.9: missed)." in text


@pytest.mark.parametrize("changes", augmentation.SETS, ids=str)
def test_our_view_is_what_the_set_says(changes: augmentation.Changes) -> None:
    x = torch.randn(16, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    view = augmentation.our_view(changes)
    first, second = view(x), view(x)
    assert first.shape == x.shape and not torch.equal(first, second)


def test_views_that_change_images_by_other_amounts_are_not_compared() -> None:
    x = torch.zeros(4, 1, 8, 8)
    views = {"ours": lambda x: x + 1.0, "peer": lambda x: x + 1.1}
    taken, changed = augmentation.compare(x, views, rounds=2)
    assert changed == pytest.approx([1.0, 1.1]) and len(taken["peer"]) == 2
    with pytest.raises(ValueError, match="Not equal work"):
        augmentation.compare(x, views | {"lazy": lambda x: x}, rounds=1)


def test_flops_of_layers_that_can_be_counted_by_hand() -> None:
    """Forward, and backward for the weights; no gradient for the images. A convolution counts at each place."""

    def loss(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = network(x)
        return found.sum()

    forward = 2 * 6 * 5
    assert training.flops_of(nn.Linear(6, 5, bias=False), loss, torch.randn(3, 6)) == 2 * forward
    convolution = nn.Conv2d(1, 4, 3, 2, 1, bias=False)
    assert training.flops_of(convolution, loss, torch.randn(3, 1, 8, 8)) == 2 * (2 * 9 * 4 * 4 * 4)
    assert convolution.weight.grad is None


def test_a_learner_reaches_a_goal_at_its_first_error_below() -> None:
    one = training.Learner(nn.Identity(), torch.optim.SGD([torch.zeros(1)]))
    one.errors = [(10, 1.0, 0.9), (20, 2.0, 0.4), (30, 3.0, 0.5), (40, 4.0, 0.3)]
    assert one.reached(0.4) == (20, 2.0) and one.reached(0.2) is None


def test_autoencoders_give_images_back_and_only_the_steps_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "BATCH", 4)
    monkeypatch.setattr(training, "CHUNK", 2)
    images = torch.randn(6, 1, 64, 64)
    ticks: Iterator[float] = iter([10.0, 13.0, 100.0, 105.0])
    one = training.learner(training.our_autoencoder, 0, tuned=True)
    for _ in range(2):
        training.train_chunk(one, images, images[:2], lambda: next(ticks))
    assert (one.steps, one.seconds) == (4, 8.0)
    assert [(steps, seconds) for steps, seconds, _ in one.errors] == [(2, 3.0), (4, 8.0)]
    assert training.usual_autoencoder()(images).shape == images.shape


def test_augment_is_timed_and_unchanged() -> None:
    x = torch.randn(4, 1, 16, 16)
    how = augmentation.Augmentation(rotation=10, noise=0.1)
    watch = steps.Stopwatch()
    found = watch(x, how, torch.Generator().manual_seed(0))
    assert torch.equal(found, augmentation.augment(x, how, torch.Generator().manual_seed(0)))
    assert watch.seconds > 0


def write_cell(folder: Path, name: str, seconds: float, nmi: float | None, reading: str) -> None:
    cell: dict[str, Any] = {"cpu_seconds": seconds, "finished": nmi is not None, "scores": {}}
    if nmi is not None:
        cell["scores"] = {reading: {"nmi": nmi}}
    (folder / f"{name}.json").write_text(json.dumps(cell))


def test_whole_fits_are_read_from_their_cells(tmp_path: Path) -> None:
    for seed in range(3):
        write_cell(tmp_path, f"dcec-{seed}", 10.0 + seed, 0.8, "graph")
    write_cell(tmp_path, "peer-DEC-0", 40.0, 0.7, "own")
    write_cell(tmp_path, "peer-DEC-1", 44.0, 0.7, "own")
    write_cell(tmp_path, "peer-IDEC-0", 600.0, None, "own")
    for seed in range(3):
        write_cell(tmp_path, f"peer-VaDE-{seed}", 20.0, 0.9, "own")
    text = fit.report(tmp_path)
    assert "| medstrata DCEC (graph) | 10, 11, 12 | 0.80, 0.80, 0.80 | 1 [1 to 1] | - |" in text
    assert "| ClustPy DEC | 40, 44 | 0.70, 0.70 | 4 [4 to 4] | no cell: seed 2 |" in text
    assert "| ClustPy IDEC | - | - | more than 60 | stopped at its limit: seed 0; no cell: seeds 1, 2 |" in text
    assert "DEC: 4 times our CPU time, our NMI equal or better (target 3: reached on 2 of 3 seeds only)." in text
    assert "VaDE: 1.82 times our CPU time, our NMI lower (target 3: missed)." in text


def test_whole_fits_without_any_cell_are_said_to_be_missing(tmp_path: Path) -> None:
    assert fit.report(tmp_path).count("no cell: seeds 0, 1, 2") == 4


def test_starts_are_processes_and_a_failing_one_is_an_error() -> None:
    python = startup.OWN if startup.OWN.exists() else Path(sys.executable)
    wall, cpu = startup.start([python, "-c", "sum(range(10**6))"])
    assert cpu > 0 and wall > 0
    with pytest.raises(subprocess.CalledProcessError):
        startup.start([python, "-c", "raise SystemExit(3)"])


def test_all_of_them_go_on_after_one_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    python = home / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$@ with $OMP_NUM_THREADS thread"\n[ "$4" != benchmarks.speed.kmeans ]\n')
    python.chmod(0o755)
    missing = tmp_path / "missing"
    monkeypatch.setattr(everything, "BENCHMARKS", {"kmeans": home, "training": missing, "fit": home})
    monkeypatch.setattr(everything, "MADE_BY", {missing: "make peers"})
    assert everything.main() == 2
    said = capfd.readouterr()
    assert "-W ignore -m benchmarks.speed.fit with 1 thread" in said.out
    assert "Make it with: make peers" in said.out and "python -m benchmarks.scan" in said.out
    assert "Failed or not run: kmeans, training." in said.err
