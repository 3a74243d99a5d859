"""How often clusters are called supported: where there are none, and where some were planted.

python -m benchmarks.validity.supported [--sets NAME ...] [--method pca] [--repeats 34] [--workers 2]

Each set is clustered, refitted and tried against images without groups as ``medstrata validate`` does. Where the refits
already disagree the null is left out: the verdict is the same. A set that was done before is read from ``--folder``.
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import binomtest

from benchmarks.maps.inserted import Setting, cut
from benchmarks.results.sets import data_folder
from medstrata.evidence.metrics import score
from medstrata.evidence.validity.null import null_test
from medstrata.evidence.validity.stability import stability
from medstrata.evidence.validity.verdict import judge
from medstrata.images.plan import Plan
from medstrata.pipeline.fitting import method_of
from medstrata.pipeline.refits import Material, null_statistics, refits
from medstrata.run import no_progress, read_json, write_json
from medstrata.simulation.study import GROUPS, Group, Study, simulate_volumes

IMAGES, CLUSTERS, SIDE = 150, 3, 24
REFITS, SURROGATES = 3, 19
FOLDER = Path("build", "validity")
Made = tuple[NDArray[np.uint8], NDArray[np.int64] | None]


def white(seed: int) -> Made:
    """Independent pixels."""
    return np.random.default_rng(seed).integers(0, 256, (IMAGES, 1, SIDE, SIDE)).astype(np.uint8), None


def smooth(seed: int) -> Made:
    """Smooth Gaussian fields: a few directions carry most of the variance."""
    fields = gaussian_filter(np.random.default_rng(seed).normal(size=(IMAGES, SIDE, SIDE)), (0, 4, 4))
    return _bytes(fields[:, None]), None


def continuum(seed: int) -> Made:
    """A bright disc whose place and size vary without gaps: not Gaussian, and no groups."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    place = random.uniform(6, SIDE - 6, (IMAGES, 2, 1, 1))
    radius = random.uniform(2, 5, (IMAGES, 1, 1))
    disc = np.hypot(rows - place[:, 0], columns - place[:, 1]) < radius
    return _bytes((disc + 0.3 * random.normal(size=disc.shape))[:, None]), None


def chests(seed: int, groups: tuple[Group, ...] = (Group("none", ()),), noise: float = 100.0) -> Made:
    """Simulated chests without lesions, summed from front to back."""
    study = Study(IMAGES, groups, (SIDE, 32, SIDE), (290 / SIDE, 340 / 32, 340 / SIDE), noise, seed=seed)
    volumes, _, _ = simulate_volumes(study)
    pictures = np.clip(volumes, -1024, 600).astype(np.float32).mean(3 if volumes.ndim == 5 else 2)
    return _bytes(pictures.reshape(IMAGES, 1, *pictures.shape[-2:])), study.labels()


def planted_chests(seed: int) -> Made:
    """The same with one of three lesions each."""
    return chests(seed, GROUPS)


def squares(seed: int, contrast: float = 1.0) -> Made:
    """A square at one of three places, in noise of the same size."""
    random = np.random.default_rng(seed)
    groups = random.integers(CLUSTERS, size=IMAGES)
    pixels = random.normal(size=(IMAGES, SIDE, SIDE))
    for number, group in enumerate(groups):
        pixels[number, 2 + 7 * group : 8 + 7 * group, 6:12] += contrast
    return _bytes(pixels[:, None]), groups


def lung_ct(seed: int, factor: str = "none") -> Made:
    """Patches of real lung CT of one patient; nothing is inserted."""
    patches = cut(data_folder(), Setting(factor, count=IMAGES), "right", seed)
    return _bytes(np.clip(patches.images, -1000, 200).astype(np.float32)), patches.groups


def lung_ct_with_lesions(seed: int) -> Made:
    """The same, a lesion inserted at one of three places."""
    return lung_ct(seed, "location")


def _bytes(pixels: NDArray[np.floating]) -> NDArray[np.uint8]:
    low, high = np.quantile(pixels, [0.001, 0.999])
    values: NDArray[np.uint8] = ((pixels - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)
    return values


SETS = {
    "white noise": white,
    "smooth noise": smooth,
    "disc, a continuum": continuum,
    "chests without lesions": chests,
    "chests, three lesions": planted_chests,
    "squares, three places": squares,
    "lung CT without lesions": lung_ct,
    "lung CT, lesions at three places": lung_ct_with_lesions,
}
WITHOUT = ("white noise", "smooth noise", "disc, a continuum", "chests without lesions", "lung CT without lesions")


def examine(name: str, method: str, seed: int) -> dict[str, Any]:
    """Cluster, validate and judge one set."""
    pixels, groups = SETS[name](seed)
    grid = list(pixels.shape[2:])
    plan = Plan(
        "subtypes",
        False,
        2,
        grid,
        None,
        1,
        1,
        "uint8",
        {},
        method,
        CLUSTERS,
        16,
        seed,
        1,
        settings=_mild(method),
    )
    labels = method_of(plan, "cpu").fit(pixels).labels_
    names = np.array([f"image {number}" for number in range(IMAGES)])
    material = Material(pixels, np.arange(IMAGES), names, names, labels, plan, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        made = refits(material, Path(folder), REFITS, no_progress)
        found = stability(labels, made, CLUSTERS)
        agree = min(found[kind]["ari"]["mean"] for kind in ("seeds", "patients"))
        null = None
        if judge(found, {"passed": True, "separate": True}, [1] * CLUSTERS)["supported"]:
            null = null_test(*null_statistics(material, Path(folder), SURROGATES, no_progress))
    sizes = np.bincount(labels, minlength=CLUSTERS).tolist()
    verdict = judge(found, null, sizes)
    accuracy = score(groups, labels)["accuracy"] if groups is not None and name not in WITHOUT else None
    tried = {} if null is None else {"p": null["p"], "separate": null["separate"]}
    return {"supported": verdict["supported"], "agreement": agree, "accuracy": accuracy, **tried}


def _mild(method: str) -> dict[str, Any]:
    """Half as long as by default, as the images are small and easy; DCEC with the paper's weight, ten times ours."""
    weight = {"clustering_weight": 0.1} if method == "dcec" else {}
    return {} if method == "pca" else {"training": {"warmup_steps": 250}, **weight}


def _kept(job: tuple[str, str, int, Path]) -> dict[str, Any]:
    name, method, seed, folder = job
    file = folder / f"supported-{name.replace(' ', '-').replace(',', '')}-{method}-{seed}.json"
    if not file.exists():
        write_json(file, examine(name, method, seed))
    found: dict[str, Any] = read_json(file)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validity.supported", description=__doc__.split("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--method", default="pca")
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    given = parser.parse_args()
    print(
        "| set | method | sets | supported | 95 % interval | of these with a gap | refits agree (mean ARI) | accuracy |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with ProcessPoolExecutor(given.workers) as pool:
        for name in given.sets:
            jobs = [(name, given.method, seed, given.folder) for seed in range(given.repeats)]
            print(_row(name, given.method, list(pool.map(_kept, jobs))), flush=True)


def _row(name: str, method: str, found: list[dict[str, Any]]) -> str:
    supported = sum(one["supported"] for one in found)
    interval = binomtest(supported, len(found)).proportion_ci()
    accuracy = [one["accuracy"] for one in found if one["accuracy"] is not None]
    cells = [name, method, str(len(found)), str(supported), f"{interval.low:.2f} to {interval.high:.2f}"]
    cells.append(str(sum(one["supported"] and one["separate"] for one in found)))
    cells += [f"{np.mean([one['agreement'] for one in found]):.2f}", f"{np.mean(accuracy):.2f}" if accuracy else ""]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
