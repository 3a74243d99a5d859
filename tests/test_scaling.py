"""Job arrays and Ray: the files of a plain run, whoever made them; and what is said where they cannot work."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import shard_functions as functions
import torch
from PIL import Image

from command_line import images, medstrata
from medstrata.errors import InputError, RunFolderError
from medstrata.images import ray_workers, shards
from medstrata.images.manifest import Manifest, Sharding
from medstrata.images.ray_workers import OnRay
from medstrata.images.shards import Work, run_shards
from medstrata.images.workers import Executor
from medstrata.pipeline import embedding
from medstrata.run import FORMAT, RunFolder, atomic, write_json

SALT = "5" * 64
MADE = (
    *("catalog.parquet", "pixels.npy", "images.parquet", "left_out.parquet"),
    *("embeddings.npy", "soft_assignments.npy", "assignments.parquet"),
)


def pngs(folder: Path, count: int = 24) -> Path:
    folder.mkdir(parents=True)
    for number, image in enumerate(images(count)[0]):
        Image.fromarray(image).save(folder / f"{number:02d}.png")
    (folder / "notes.txt").write_text("not an image")
    (folder / "cut.png").write_bytes((folder / "00.png").read_bytes()[:-60])
    return folder


def prepared(out: Path) -> Path:
    (out / "private").mkdir(parents=True)
    (out / "private" / "salt").write_text(SALT)
    return out


@pytest.fixture(scope="module", autouse=True)
def protected() -> None:
    """Ray reads its token when it is imported, by whichever test comes first."""
    ray_workers._protect()


@pytest.fixture
def sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few files are read as if they were many."""
    monkeypatch.setattr("medstrata.images.catalog.FILES_IN_THIS_PROCESS", 0)
    monkeypatch.setattr(embedding, "VALUES_PER_SHARD", 1)
    monkeypatch.setattr(embedding, "BLOCK", 8)
    monkeypatch.setattr("medstrata.methods.method.BLOCK", 8)


@pytest.fixture
def whole(tmp_path: Path, sharded: None) -> Path:
    """A plain run of ``tmp_path / "in"``."""
    out = prepared(tmp_path / "whole")
    answer = medstrata("run", pngs(tmp_path / "in"), out, "--clusters", 3, "--method", "pca", "--workers", 1)
    assert answer.code == 0, answer.err
    return out


def same(out: Path, whole: Path) -> None:
    for name in MADE:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert not (out / "private" / "shards").exists()


def test_a_job_array_makes_the_files_of_a_plain_run(tmp_path: Path, whole: Path) -> None:
    source, out = tmp_path / "in", prepared(tmp_path / "out")
    said = []
    for stage, given in (("scan", [source, out]), ("decode", [out]), ("assign", [out])):
        for share in ("2/2", "1/2"):
            answer = medstrata(stage, *given, "--shards", share, *([] if stage == "assign" else ["--workers", 1]))
            assert answer.code == 0 and f"{stage}: share {share[0]} of 2 is done" in answer.err, answer.err
        shards = out / "private" / "shards" / stage
        assert shards.stat().st_mode & 0o077 == 0
        made = {file: file.stat().st_mtime_ns for file in shards.glob("*.shard")}
        assert len(made) == {"scan": 13, "decode": 13, "assign": 3}[stage]
        assert not (out / "catalog.parquet").exists() or stage != "scan"
        answer = medstrata(stage, *given)
        assert answer.code == 0, answer.err
        said.append(answer.err)
        if stage == "scan":
            assert medstrata("plan", out, "--clusters", 3, "--method", "pca").code == 0
        if stage == "decode":
            assert medstrata("fit", out).code == 0
    assert not any("goes on with" in text for text in said)  # everything was done already
    same(out, whole)


def test_jobs_of_an_array_share_a_folder_and_plain_runs_do_not(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "out")
    with folder.locked(shared=True):
        with folder.locked(shared=True):
            pass
        with pytest.raises(RunFolderError, match="Another medstrata run is using"), folder.locked():
            raise AssertionError
    with (
        folder.locked(),
        pytest.raises(RunFolderError, match="Another medstrata run is using"),
        folder.locked(shared=True),
    ):
        raise AssertionError


def test_two_shares_of_an_empty_out_at_once(tmp_path: Path) -> None:
    """Both find no salt, no listing and no folder; one makes them."""
    source, out = pngs(tmp_path / "in"), tmp_path / "out"
    command = [sys.executable, "-m", "medstrata", "scan", str(source), str(out), "--shards"]
    jobs = [subprocess.Popen([*command, f"{number}/3"], stderr=subprocess.PIPE, text=True) for number in (1, 2, 3)]
    said = [job.communicate(timeout=120)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0], said
    assert medstrata("scan", source, out).code == 0


def test_a_job_comes_while_another_writes_the_first_files_of_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "out")
    with atomic(folder.path / "run.json"), folder.locked(shared=True):
        pass
    (folder.path / "run.json").unlink()
    listed = Path.iterdir

    def made_meanwhile(path: Path) -> Iterator[Path]:
        write_json(path / "run.json", {"format": FORMAT, "stages": {"scan": {}}})
        (path / "catalog.parquet").touch()
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", made_meanwhile)
    assert folder.state()["stages"] == {"scan": {}}
    (folder.path / "run.json").unlink()
    monkeypatch.setattr(Path, "iterdir", listed)
    with pytest.raises(RunFolderError, match="is not a run folder"):
        folder.state()


def test_a_share_that_is_no_share_is_refused(tmp_path: Path) -> None:
    for value in ("0/2", "3/2", "2", "a/b", "1/", ""):
        answer = medstrata("decode", tmp_path, "--shards", value)
        assert answer.code == 2 and "I/N" in answer.err
    answer = medstrata("decode", tmp_path / "nothing", "--shards", "1/2")
    assert answer.code == 1 and "is not a run folder" in answer.sentence


def test_torchrun_starts_fits_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    answer = medstrata("assign", tmp_path)
    assert answer.code == 2 and "torchrun starts `fit` only" in answer.err and "medstrata assign ..." in answer.err


def stopping(done: list[int]) -> Any:
    """What embeds a block of rows, notes its start, and ends the run from outside after the second."""
    block = embedding._Rows._block

    def counted(self: Any, start: int) -> bytes:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(start)
        return block(self, start)

    return counted


def test_an_interrupted_assign_goes_on(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "ROWS_IN_ONE_PASS", 0)
    done: list[int] = []
    before = {name: (whole / name).read_bytes() for name in MADE}
    with monkeypatch.context() as patch:
        patch.setattr(embedding._Rows, "_block", stopping(done))
        assert medstrata("assign", whole, "--redo").code == 1
    answer = medstrata("assign", whole)
    assert done == [0, 8] and "assign: 2 of 3 shards are done already; it goes on with the others" in answer.err
    assert {name: (whole / name).read_bytes() for name in MADE} == before


def test_ray_that_was_imported_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setitem(sys.modules, "ray", sys)
    with pytest.raises(InputError, match="set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN before it is imported"):
        OnRay(2)


def test_ray_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.exceptions", None)
    answer = medstrata("run", pngs(tmp_path / "in"), tmp_path / "out", "--executor", "ray")
    assert answer.code == 1 and "pip install 'medstrata[ray]'" in answer.sentence


def test_an_address_without_ray_is_a_wrong_command(tmp_path: Path) -> None:
    answer = medstrata("scan", pngs(tmp_path / "in"), tmp_path / "out", "--address", "10.0.0.1:6379")
    assert answer.code == 2 and "--executor ray" in answer.err


@pytest.fixture
def listening() -> Iterator[int]:
    """A port where something answers that is not Ray."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                    connection.close()
                except OSError:
                    return

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nonsense", "is no address of a Ray cluster"),
        ("host:port", "is no address of a Ray cluster"),
        ("127.0.0.1:1", "No Ray cluster answers at 127.0.0.1:1 (Connection refused)"),
        ("ray://127.0.0.1:1", "No Ray cluster answers"),
        ("no-such-host.invalid:6379", "No Ray cluster answers"),
        ("127.0.0.1:99999", "No Ray cluster answers"),
    ],
)
def test_a_wrong_address_is_told_at_once(address: str, said: str, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'medstrata[ray]'")
    started = time.monotonic()
    answer = medstrata("scan", pngs(tmp_path / "in"), tmp_path / "out", "--executor", "ray", "--address", address)
    assert answer.code == 1 and said in answer.sentence, answer.err
    assert time.monotonic() - started < 60 and not (tmp_path / "out" / "catalog.parquet").exists()


@pytest.mark.slow
def test_something_else_than_ray_at_the_address(listening: int, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'medstrata[ray]'")
    started = time.monotonic()
    with pytest.raises(InputError, match="what listens there is no Ray cluster"):
        OnRay(1, f"127.0.0.1:{listening}")
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_a_cluster_of_this_machine_that_has_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves its address behind, and Ray would wait there for ever."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'medstrata[ray]'")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(InputError, match="no cluster runs on this machine"):
        OnRay(1, "auto")
    assert time.monotonic() - started < 60


@pytest.fixture(scope="module")
def on_ray() -> Iterator[OnRay]:
    """A Ray cluster of this machine: to start one takes 4 to 25 s."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'medstrata[ray]'")
    ray.cloudpickle.register_pickle_by_value(functions)  # its workers cannot import what stands among the tests
    executor = OnRay(2)
    with executor:
        yield executor
    executor.close()


def run_on(executor: Executor, folder: Path, function: Any, items: Any = range(20)) -> list[Any]:
    manifest = Manifest(folder / "stage", "t", len(items), 3)
    manifest.begin()
    sharding = Sharding(manifest.folder, "t", executor)
    return list(run_shards(manifest, Work("test", items, function, functions.reason), sharding))


EVERY = [2 * number for number in range(20)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_does_what_processes_do(
    on_ray: OnRay, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_on(on_ray, tmp_path / "a", functions.double) == EVERY
    assert run_on(on_ray, tmp_path / "b", functions.or_die) == [*EVERY[:7], "decoder_crashed", *EVERY[8:]]
    items = [(number, tmp_path / "mark") for number in range(20)]
    assert run_on(on_ray, tmp_path / "c", functions.killed_once, items) == EVERY
    with pytest.raises(InputError, match="no longer reachable"):
        run_on(on_ray, tmp_path / "d", functions.or_gone)
    with pytest.raises(OSError, match="No space left"):
        run_on(on_ray, tmp_path / "e", functions.or_full)
    lost, told = Future[Any](), Future[Any]()
    lost.set_exception(on_ray._ray.exceptions.LocalRayletDiedError())
    on_ray._pass_on(lost, told)
    with pytest.raises(RunFolderError, match="Ray has ended on this machine"):
        told.result()
    for name, seconds in (("SAY_SECONDS", 0.5), ("SHARD_SECONDS", 3.0), ("ITEM_SECONDS", 2.0)):
        monkeypatch.setattr(shards, name, seconds)
    assert run_on(on_ray, tmp_path / "f", functions.or_hang) == [*EVERY[:7], "decoder_hangs", *EVERY[8:]]
    assert "Ray has 2 processors" in on_ray.state()
    with pytest.raises(RunFolderError, match=r"finished nothing for a long time \(Ray has 2"):
        on_ray.give_up()


@pytest.fixture
def in_use(on_ray: OnRay, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--executor ray`` takes the cluster that is there."""
    monkeypatch.setattr(ray_workers, "OnRay", lambda workers, address: on_ray)
    monkeypatch.setattr(on_ray, "close", lambda: None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_on_ray_makes_the_files_of_a_plain_run(in_use: None, tmp_path: Path, whole: Path) -> None:
    out = prepared(tmp_path / "out")
    wanted = ["--clusters", 3, "--method", "pca", "--executor", "ray"]
    answer = medstrata("run", tmp_path / "in", out, *wanted)
    assert answer.code == 0, answer.err
    same(out, whole)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As Ray's workers: with another number of threads torch adds up in another order, and the last digit differs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_maps_made_on_ray_are_those_of_one_process(
    in_use: None, quick_fits: None, one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medstrata.evidence.maps.blocks.IMAGES_AT_ONCE", 5)
    out = tmp_path / "out"
    answer = medstrata("run", pngs(tmp_path / "in"), out, "--clusters", 3, "--method", "dcec")
    assert answer.code == 0, answer.err
    names = ("maps/maps.npy", "maps/cluster_maps.npy", "maps/cluster_spread.npy", "maps/summary.json")
    before = {name: (out / name).read_bytes() for name in names}
    index = pq.read_table(out / "maps" / "index.parquet")
    answer = medstrata("explain", out, "--redo", "--executor", "ray")
    assert answer.code == 0, answer.err
    assert {name: (out / name).read_bytes() for name in names} == before
    assert pq.read_table(out / "maps" / "index.parquet") == index


DRIVER = """
import sys
from pathlib import Path
from medstrata.images import catalog
from medstrata.pipeline.job import Job
from medstrata.pipeline.runner import run_stage
from medstrata.run import FORMAT, RunFolder, atomic, write_json

catalog.FILES_IN_THIS_PROCESS = 0
source, out = map(Path, sys.argv[1:])
for name in ("scan", "plan", "decode"):
    job = Job(RunFolder(out), workers=2, executor="ray")
    run_stage(name, job, input_path=source if name == "scan" else None)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_driver_on_ray_killed_at_random_moments(tmp_path: Path, whole: Path) -> None:
    """Its cluster ends with it, and the next one goes on."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'medstrata[ray]'")
    (tmp_path / "driver.py").write_text(DRIVER)
    command = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "in")]
    moments = random.Random(2)
    for number in range(4):
        out = prepared(tmp_path / f"out{number}")
        with (tmp_path / "said").open("wb") as said:
            process = subprocess.Popen([*command, str(out)], stdout=said, stderr=said)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moments.uniform(3, 12))
            process.kill()
            process.wait()
            again = subprocess.run([*command, str(out)], stdout=said, stderr=said, timeout=200)
        assert again.returncode == 0, (tmp_path / "said").read_text()
        for name in MADE[:4]:
            assert (out / name).read_bytes() == (whole / name).read_bytes(), (number, name)


ON_TWO_MACHINES = """
import json, sys
from pathlib import Path
import ray
import shard_functions as functions
from medstrata.images.manifest import Manifest, Sharding
from medstrata.images.ray_workers import OnRay
from medstrata.images.shards import Work, run_shards

folder, address = Path(sys.argv[1]), sys.argv[2]
ray.cloudpickle.register_pickle_by_value(functions)
items = [(number, folder) for number in range(60)]
manifest = Manifest(folder / "stage", "t", len(items), 2)
manifest.begin()
with OnRay(2, address) as executor:
    work = Work("test", items, functions.where, functions.reason)
    found = list(run_shards(manifest, work, Sharding(manifest.folder, "t", executor)))
(folder / "found.json").write_text(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_machine_of_a_ray_cluster_is_lost(tmp_path: Path) -> None:
    """What it had begun is done elsewhere, nothing twice."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'medstrata[ray]'")
    from ray.cluster_utils import Cluster

    (tmp_path / "driver.py").write_text(ON_TWO_MACHINES)
    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=1, include_dashboard=False)
        lost = cluster.add_node(num_cpus=1, include_dashboard=False)
        cluster.wait_for_nodes()
        command = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path), cluster.address]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent / "images")])}
        with (tmp_path / "said").open("wb") as said:
            driver = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
            ended = time.monotonic() + 100
            while not (tmp_path / lost.node_id).exists() and time.monotonic() < ended:
                time.sleep(0.05)
            assert (tmp_path / lost.node_id).exists(), (tmp_path / "said").read_text()
            cluster.remove_node(lost, allow_graceful=False)
            assert driver.wait(200) == 0, (tmp_path / "said").read_text()
    finally:
        cluster.shutdown()
    assert json.loads((tmp_path / "found.json").read_text()) == [2 * number for number in range(60)]
    assert not list((tmp_path / "stage").glob("*.part"))


def test_redo_does_not_take_over_what_an_interrupted_call_has_done(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "ROWS_IN_ONE_PASS", 0)
    done: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(embedding._Rows, "_block", stopping(done))
        assert medstrata("assign", whole, "--redo").code == 1
    done.clear()
    with monkeypatch.context() as patch:
        patch.setattr(embedding._Rows, "_block", stopping(done))
        assert medstrata("assign", whole, "--redo").code == 1
    assert done == [0, 8]
