"""Labels of the peers: other people's programs, each run as a process of its own in the environment of ``make peers``.

ClustPy and UMAP want other versions of things than medstrata does, and a process can be timed and stopped.
"""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PEERS = ("DEC", "IDEC", "VaDE", "UMAP+HDBSCAN", "UMAP+GMM")
ENVIRONMENT = Path(__file__).resolve().parents[1] / ".peers"
SCRIPT = Path(__file__).with_name("peer.py")
# The shell sets the limit, not Python between fork and exec, which is unsafe once torch has started threads here.
LIMITED = 'ulimit -c 0 && ulimit -S -t "$0" && exec "$@"'


def peer_labels(
    name: str, images: NDArray[Any], n_clusters: int, seed: int, limit_seconds: int
) -> tuple[NDArray[np.int64] | None, float]:
    """Cluster images with the peer ``name`` (one of ``PEERS``) on one thread, with its own defaults.

    Parameters
    ----------
    images : (N, ...) of any numbers; the peer sees rows scaled to 0..1 over the whole set
    n_clusters : UMAP+HDBSCAN ignores it and finds its own
    limit_seconds : CPU seconds after which the peer is stopped

    Returns
    -------
    labels (N,), or None when the limit was reached, and the CPU seconds of the process, imports included
    (``limit_seconds`` when it was reached).

    Raises
    ------
    FileNotFoundError : the peers' environment is not there
    RuntimeError : the peer failed
    """
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        raise FileNotFoundError(f"The peers' environment is missing ({python}). Make it with: make peers")
    with tempfile.TemporaryDirectory() as temporary:
        pixels, labels = Path(temporary, "images.npy"), Path(temporary, "labels.npy")
        np.save(pixels, images)
        script = [python, SCRIPT, name, pixels, n_clusters, seed, labels]
        command = ["/bin/sh", "-c", LIMITED, *map(str, [limit_seconds, *script])]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode == -signal.SIGXCPU:
            return None, float(limit_seconds)
        if ended.returncode:
            last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
            raise RuntimeError(f"{name} failed on {len(images)} images with seed {seed}: {last}")
        return np.load(labels), float(json.loads(ended.stdout.splitlines()[-1])["cpu_seconds"])
