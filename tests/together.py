"""Run a function of this file in several processes, and alone, in float64; each returns tensors and values."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize

from benchmarks.results.balanced import equal_shares
from medstrata.errors import FitError
from medstrata.learning import comm as comm_module
from medstrata.learning import kmeans as kmeans_module
from medstrata.learning import nearest as nearest_module
from medstrata.learning.comm import ALONE, Comm, generator, joined
from medstrata.learning.fitting import Fit
from medstrata.learning.kmeans import elbow, kmeans, spherical_kmeans
from medstrata.learning.norms import normalise_over_all
from medstrata.learning.self_training import refresh_target, start_prototypes
from medstrata.learning.train import Training
from medstrata.methods.contrastive import contrastive_loss
from medstrata.methods.settings import make_method
from planted import squares

Found = dict[str, Any]


def alone(name: str) -> Found:
    """Return what the function ``name`` finds in this process."""
    torch.set_default_dtype(precision(name))
    try:
        return WORK[name](ALONE)
    finally:
        torch.set_default_dtype(torch.float32)


def together(name: str, folder: Path, world: int = 2) -> list[Found]:
    """Return what each of ``world`` processes finds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    own["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, name, str(folder / f"{rank}.pt")],
            env={**os.environ, **own, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(world)
    ]
    try:
        assert [process.wait(240) for process in processes] == [0] * world
    finally:
        for process in processes:
            process.kill()
            process.wait()
    written = [folder / f"{rank}.pt" for rank in range(world)]
    return [torch.load(file, weights_only=False) for file in written if file.exists()]


def precision(name: str) -> torch.dtype:
    """Principal components are single precision whatever is asked for."""
    return torch.float32 if name == "without training" else torch.float64


def own_rows(comm: Comm, rows: torch.Tensor) -> torch.Tensor:
    return rows[comm.share(len(rows))].clone()


def exchange(comm: Comm) -> Found:
    rows = own_rows(comm, torch.arange(15.0).view(5, 3)).requires_grad_()  # 2 and 3 rows
    everyone = comm.gather_with_gradient(rows)
    loss = (everyone.square() * (comm.rank + 1)).sum() / sum(range(1, comm.world + 1))
    torch.autograd.backward(loss)
    assert rows.grad is not None
    layer = nn.Linear(3, 1, bias=False)
    nn.init.ones_(layer.weight)
    torch.autograd.backward(layer(rows.detach()).sum())
    comm.add_gradients(layer)
    assert layer.weight.grad is not None
    index = torch.tensor([4, 0, 4, 2])
    return {
        "total": comm.total(rows.sum(0)),
        "gather": comm.gather(rows),
        "gradient": comm.gather(rows.grad),
        "rows": comm.rows(rows.detach(), index, 5),
        "count": comm.count(rows),
        "any": (comm.any(False), comm.any(comm.rank == comm.world - 1)),
        "first": comm.first(lambda: {"a": [1, "b"]}),
        "layer": layer.weight.grad,
        "before": comm.before(torch.tensor(1)) == comm.rank,
    }


def norms(comm: Comm) -> Found:
    found: Found = {}
    kinds = (nn.BatchNorm1d, (7, 4)), (nn.BatchNorm2d, (7, 4, 3, 5)), (nn.BatchNorm3d, (7, 4, 2, 3, 5))
    for kind, shape in kinds:
        network = nn.Sequential(kind(4))
        nn.init.uniform_(network[0].weight, generator=generator(1))
        names = list(network.state_dict())
        normalise_over_all(network, comm)
        assert list(network.state_dict()) == names
        images = own_rows(comm, torch.randn(shape, generator=generator(0)) * 3 + 50).requires_grad_()
        weights = own_rows(comm, torch.randn(shape, generator=generator(2)))
        for _ in range(2):
            out = network(images)
        torch.autograd.backward((out * weights).sum())
        comm.add_gradients(network)
        assert images.grad is not None
        found |= {f"{kind.__name__} out": comm.gather(out), f"{kind.__name__} gradient": comm.gather(images.grad)}
        found |= {f"{kind.__name__} {name}": value.clone() for name, value in network.state_dict().items()}
        found |= {f"{kind.__name__} d{name}": value.grad for name, value in network.named_parameters()}
        found[f"{kind.__name__} evaluated"] = comm.gather(network.eval()(images))
    return found


def losses(comm: Comm) -> Found:
    first = own_rows(comm, torch.randn(7, 4, generator=generator(0))).requires_grad_()
    second = own_rows(comm, torch.randn(7, 4, generator=generator(1))).requires_grad_()
    loss = contrastive_loss(first, second, 0.3, comm) * len(first) / 7
    torch.autograd.backward(loss)
    assert first.grad is not None and second.grad is not None
    return {"loss": comm.total(loss), "first": comm.gather(first.grad), "second": comm.gather(second.grad)}


def clusters(comm: Comm) -> Found:
    blobs = torch.randn(61, 3, generator=generator(0)) + 4 * torch.arange(61)[:, None].remainder(5) + 100
    some = own_rows(comm, blobs)
    found: Found = {"elbow": elbow(some, generator(1), comm)}
    equal = own_rows(comm, torch.ones(9, 2))
    cases = {"blobs": (some, 5), "many": (some, 40), "equal": (equal, 3), "one": (some, 1), "all": (some, 61)}
    for name, (vectors, count) in cases.items():
        result = kmeans(vectors, count, generator(2), restarts=3, comm=comm)
        found |= {f"{name} centres": result.centres, f"{name} inertia": result.inertia}
        found[f"{name} labels"] = comm.gather(result.labels)
    approximate = {(kmeans_module, "MOST_EXACT"): 50, (kmeans_module, "SAMPLE"): 200, (nearest_module, "BLOCK"): 8}
    usual = {(module, name): getattr(module, name) for module, name in approximate}
    for (module, name), value in approximate.items():
        setattr(module, name, value)
    # Batches are a block of each process: not the batches of one, but near the same centres.
    found["approximate"] = kmeans(some, 5, generator(2), comm=comm).inertia < 1.01 * found["blobs inertia"]
    for (module, name), value in usual.items():
        setattr(module, name, value)
    for count in (5, 55):
        prototypes, labels = spherical_kmeans(normalize(some - 104), count, generator(3), 2, comm)
        found |= {f"prototypes {count}": prototypes, f"labels {count}": comm.gather(labels)}
        found[f"shares {count}"] = comm.gather(equal_shares(normalize(some - 104) @ prototypes.T, comm=comm))
    return found


def self_training(comm: Comm) -> Found:
    images = squares(20)[0]
    fit = Fit(nn.Linear(1, 1), images, torch.as_tensor, Training(batch_size=4), 0, [], comm)
    z = own_rows(comm, torch.randn(20, 6, generator=generator(0)))
    prototypes = nn.Parameter(start_prototypes(z, 3, fit))
    with torch.no_grad():
        prototypes[1] = 50.0  # an empty cluster, to be repaired
    record = refresh_target(fit, 0, z, prototypes)
    return record | {
        "prototypes": prototypes.detach(),
        "target": comm.gather(fit.of_images["target"]),
        "next": refresh_target(fit, 1, z + 0.1, prototypes),
    }


def silence(comm: Comm) -> Found:
    if comm.rank == 1:
        time.sleep(8)
        os._exit(0)  # as if it had been stopped; it writes nothing
    try:
        comm.total(torch.ones(1))
    except FitError as error:
        return {"error": str(error)}
    return {}


SHORT = {"warmup_epochs": 2, "warmup_steps": 0, "epochs": 3, "batch_size": 16, "tolerance": 0.0}
SMALL = {"widths": [4, 8], "embedding_size": 8}


def fits(*cases: tuple[str, dict[str, Any]]) -> Callable[[Comm], Found]:
    def work(comm: Comm) -> Found:
        found: Found = {}
        for number, (name, changed) in enumerate(cases):
            settings: dict[str, Any] = {"n_clusters": 3, "device": "cpu", **changed}
            dimensions = settings.pop("dimensions", 2)
            if name != "pca":
                settings |= {"architecture": SMALL, "training": {**SHORT, **changed.get("training", {})}}
            images = squares(37, dimensions=dimensions)[0]  # batches of 16, 16 and 5
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of clusters without an image
                model = make_method(name, settings).fit(images, comm=comm)
            key = f"{number} {name}"
            found |= {f"{key} history": model.history_, f"{key} labels": torch.from_numpy(model.labels_)}
            found |= {f"{key} clusters": model.n_clusters_, f"{key} q": torch.from_numpy(model.predict_proba(images))}
        return found

    return work


WORK: dict[str, Callable[[Comm], Found]] = {
    "exchange": exchange,
    "norms": norms,
    "losses": losses,
    "clusters": clusters,
    "self_training": self_training,
    "silence": silence,
    "two fits": fits(("dvc", {}), ("deepmcat", {})),
    "all fits": fits(
        *(
            (name, {"assignment": how})
            for name in ("dcec", "dvc", "contrastive", "deepmcat")
            for how in ("own", "graph")
        ),
        *((name, {"n_clusters": "auto"}) for name in ("dcec", "contrastive", "deepmcat")),
        *((name, {"dimensions": 3}) for name in ("dvc", "contrastive")),
        # At the usual rate 15 steps make 1e-9 of the last digit.
        ("deepmcat", {"dimensions": 3, "training": {"learning_rate": 1e-4}}),
        ("contrastive", {"training": {"preprocessing": "unit", "augmentation": "radiograph"}}),
        ("auto", {}),
    ),
    "without training": fits(*(("pca", {"assignment": how}) for how in ("graph", "kmeans", "mixture"))),
}
WORK["pieces"] = lambda comm: {
    f"{name}: {key}": value
    for name in ("exchange", "norms", "losses", "clusters", "self_training", "two fits")
    for key, value in WORK[name](comm).items()
}


def same(one: Any, other: Any, tolerance: float = 1e-9) -> bool:
    """Whether values are equal, numbers with fractions to ``tolerance``."""
    if isinstance(one, torch.Tensor):
        return one.shape == other.shape and torch.allclose(one.detach(), other.detach(), rtol=tolerance, atol=tolerance)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key], tolerance) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b, tolerance) for a, b in zip(one, other, strict=True))
    return bool(abs(one - other) <= tolerance * max(1, abs(one))) if isinstance(one, float) else bool(one == other)


if __name__ == "__main__":
    torch.set_default_dtype(precision(sys.argv[1]))
    if sys.argv[1] == "silence":
        comm_module.STEP_LIMIT = timedelta(seconds=3)
    with joined() as processes:
        torch.save(WORK[sys.argv[1]](processes), sys.argv[2])
