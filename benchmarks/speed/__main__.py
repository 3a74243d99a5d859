"""All benchmarks of speed, one after the other, each in a process of its own; the tables of docs/performance.md.

python -m benchmarks.speed        (first: make setup, make peers)

What compares with other packages runs in the peers' environment; what starts the package, in its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS, OWN = ROOT / "benchmarks" / ".peers", ROOT / ".venv"
BENCHMARKS = {
    "roofs": PEERS,
    "training": PEERS,
    "augmentation": PEERS,
    "steps": OWN,
    "kmeans": PEERS,
    "fit": OWN,
    "startup": OWN,
}
MADE_BY = {PEERS: "make peers", OWN: "make setup"}
ELSEWHERE = "Reading files: python -m benchmarks.scan. Several processes: python -m benchmarks.torchrun."


def main() -> int:
    """Run them all; one that fails is named and the rest goes on. Returns how many failed."""
    failed = []
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    for name, home in BENCHMARKS.items():
        print(f"\n## python -m benchmarks.speed.{name}\n", flush=True)
        python = home / "bin" / "python"
        if not python.exists():
            print(f"Not run: its environment is missing. Make it with: {MADE_BY[home]}", flush=True)
            failed.append(name)
            continue
        command = [str(python), "-W", "ignore", "-m", f"benchmarks.speed.{name}"]
        if subprocess.run(command, env=environment, check=False).returncode:
            failed.append(name)
    print(f"\n{ELSEWHERE}")
    if failed:
        print(f"Failed or not run: {', '.join(failed)}.", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
