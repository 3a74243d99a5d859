"""Arrays: what the axes mean, that labels are never read, and a reason for every array that is unusable."""

from __future__ import annotations

import errno
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medstrata.errors import FileProblem, InputError
from medstrata.images import array
from medstrata.images.records import FrameSource
from medstrata.images.sources import open_source

H, W = 9, 10


def values(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return (np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype)


def saved(path: Path, stored: np.ndarray, compressed: bool = True, **others: object) -> Path:
    if path.suffix == ".npy":
        np.save(path, stored)
    else:
        (np.savez_compressed if compressed else np.savez)(path, images=stored, **others)
    return path


def problem(path: Path) -> FileProblem:
    """Return the problem that scanning and reading this array in a folder give alike."""
    source = open_source(path.parent)
    with pytest.raises(FileProblem) as scanned:
        array.read_headers(source, path.name)
    with pytest.raises(FileProblem) as read:
        array.read_pixels(source, [FrameSource(path.name)])
    assert read.value.code == scanned.value.code
    return scanned.value


@pytest.mark.parametrize(
    ("shape", "channels_first", "channels", "spatial"),
    [
        ((4, H, W), None, 1, (H, W)),
        ((4, H, W, 3), (0, 3, 1, 2), 3, (H, W)),
        ((4, H, W, 1), (0, 3, 1, 2), 1, (H, W)),
        ((4, 3, H, W), (0, 1, 2, 3), 3, (H, W)),
        ((4, 1, H, W), (0, 1, 2, 3), 1, (H, W)),
        ((4, 5, H, W), None, 1, (5, H, W)),
        ((4, 3, 5, H, W), (0, 1, 2, 3, 4), 3, (5, H, W)),
        ((4, 1, 5, H, W), (0, 1, 2, 3, 4), 1, (5, H, W)),
        ((4, 5, H, W, 3), (0, 4, 1, 2, 3), 3, (5, H, W)),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_what_the_axes_mean(
    tmp_path: Path,
    shape: tuple[int, ...],
    channels_first: tuple[int, ...] | None,
    channels: int,
    spatial: tuple[int, ...],
    suffix: str,
) -> None:
    stored = values(*shape)
    expected = stored[:, None] if channels_first is None else stored.transpose(channels_first)
    source = open_source(saved(tmp_path / f"a{suffix}", stored))
    records = array.read_headers(source, f"a{suffix}")
    assert [record.frames for record in records] == [[FrameSource(f"a{suffix}", row)] for row in range(4)]
    first = records[0]
    assert (first.unit, first.format) == ("series" if len(spatial) == 3 else "image", "array")
    assert (first.channels, first.rows, first.columns, first.bits) == (channels, H, W, 8)
    assert first.slices == (spatial[0] if len(spatial) == 3 else 1)
    assert (first.value_low, first.value_high, first.geometry) == (stored.min(), stored.max(), "none")
    np.testing.assert_array_equal(array.load_array(source, f"a{suffix}"), expected)
    for row in (3, 0):
        pixels = array.read_pixels(source, [FrameSource(f"a{suffix}", row)])
        np.testing.assert_array_equal(pixels.array, expected[row])
        assert pixels.array.dtype == np.float32
    if len(spatial) == 3:
        pixels = array.read_pixels(source, [FrameSource(f"a{suffix}", 1)], [4, 2])
        np.testing.assert_array_equal(pixels.array, expected[1][:, [4, 2]])


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int32", "uint64", "float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_types_and_orders(tmp_path: Path, dtype: str, order: str) -> None:
    stored = np.asarray(values(3, H, W) % 100, dtype=dtype, order=order)
    source = open_source(saved(tmp_path / "a.npy", stored))
    record = array.read_headers(source, "a.npy")[0]
    assert (record.value_low, record.value_high) == (0, 1 if dtype == "bool" else 99)
    assert record.bits == (1 if dtype == "bool" else stored.dtype.itemsize * 8)
    np.testing.assert_array_equal(array.read_pixels(source, [FrameSource("a.npy", 2)]).array[0], stored[2])


def test_fortran_order_is_mapped_and_npz_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = values(4, H, W)
    source = open_source(saved(tmp_path / "a.npy", np.asfortranarray(stored)).parent)
    mapped = array.load_array(source, "a.npy")
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    saved(tmp_path / "b.npz", stored)
    loaded: list[object] = []
    read_array = array.npy.read_array
    monkeypatch.setattr(array.npy, "read_array", lambda *a, **k: loaded.append(a) or read_array(*a, **k))
    for row in range(4):
        array.read_pixels(open_source(tmp_path), [FrameSource("b.npz", row)])
    assert len(loaded) == 1


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("numbers", [[1, 2], [3, 0, 2], [0]])
def test_rows_of_a_npy_are_read_not_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, numbers: list[int]
) -> None:
    stored = np.asarray(values(4, H, W, 3, dtype="uint16"), order=order)
    source = open_source(saved(tmp_path / "a.npy", stored))
    if order == "C":
        monkeypatch.delattr(array.npy, "open_memmap")
    rows = array.load_rows(source, "a.npy", numbers)
    np.testing.assert_array_equal(rows, stored[numbers].transpose(0, 3, 1, 2))
    assert rows.dtype == stored.dtype
    with pytest.raises(FileProblem, match="file_changed"):
        array.load_rows(source, "a.npy", [3, 4])


def test_a_drive_that_goes_away_while_rows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "share"
    root.mkdir()
    source = open_source(saved(root / "a.npy", values(4, H, W)).parent)
    array.load_rows(source, "a.npy", [0])

    def gone(*_: object) -> bytes:
        root.rename(tmp_path / "elsewhere")
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(array, "_bytes", gone)
        with pytest.raises(InputError, match="no longer reachable"):
            array.load_rows(source, "a.npy", [1])
    with pytest.raises(InputError, match="no longer reachable"):
        array.load_rows(source, "a.npy", [1])


def test_a_npy_that_shrinks_while_rows_are_read() -> None:
    with pytest.raises(EOFError):  # which _stream reports as "truncated"
        array._bytes(io.BytesIO(b"1234"), 2, 3)
    assert array._bytes(io.BytesIO(b"1234"), 1, 3) == b"234"


def test_a_file_that_changed_is_loaded_again(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", values(4, H, W))
    source = open_source(path)
    assert array.load_array(source, "a.npz").max() == 250
    saved(path, np.full((2, H, W), 7))
    assert array.load_array(source, "a.npz").tolist() == np.full((2, 1, H, W), 7).tolist()


def test_inside_a_zip(tmp_path: Path) -> None:
    stored = values(4, H, W)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("readme", "first, so that the zip is not taken for an npz")
        archive.write(saved(tmp_path / "a.npy", stored), "a.npy")
        archive.write(saved(tmp_path / "b.npz", stored), "b.npz")
    source = open_source(tmp_path / "in.zip")
    for name in ("a.npy", "b.npz"):
        assert len(array.read_headers(source, name)) == 4
        np.testing.assert_array_equal(array.read_pixels(source, [FrameSource(name, 3)]).array[0], stored[3])


def test_no_other_key_is_read(tmp_path: Path) -> None:
    stored = values(4, H, W)
    path = saved(tmp_path / "a.npz", stored, compressed=False, labels=np.array([b"SECRETLABEL"]))
    path.write_bytes(path.read_bytes().replace(b"SECRETLABEL", b"DAMAGEDDATA"))  # reading it would fail its checksum
    source = open_source(path)
    assert len(array.read_headers(source, "a.npz")) == 4
    np.testing.assert_array_equal(array.read_pixels(source, [FrameSource("a.npz", 1)]).array[0], stored[1])


def test_missing_key(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=values(4, H, W), y=np.arange(4))
    with pytest.raises(InputError, match=r"no key 'images' \(keys: x, y\). Save the images under the key 'images'"):
        array.read_headers(open_source(tmp_path / "a.npz"), "a.npz")
    reason = problem(tmp_path / "a.npz")
    assert reason.code == "array_key"
    assert "2 keys" in reason.sentence
    assert "x" not in reason.sentence.split()


@pytest.mark.parametrize("shape", [(), (5,), (H, W), (0, H, W), (4, 2, W), (4, H, 2), (4, 0, H, W), (2, 2, 2, 2, H, W)])
def test_shapes_that_are_no_images(tmp_path: Path, shape: tuple[int, ...]) -> None:
    reason = problem(saved(tmp_path / "a.npy", np.zeros(shape, np.uint8)))
    assert reason.code == "array_shape"
    assert str(shape) in reason.sentence
    assert "(N, H, W)" in reason.sentence


def test_types_that_are_no_images(tmp_path: Path) -> None:
    for stored in (np.zeros((4, H, W), complex), np.full((4, H, W), "a"), np.zeros((4, H, W), [("r", "u1")])):
        assert problem(saved(tmp_path / "a.npy", stored)).code == "data_type"
        assert problem(saved(tmp_path / "a.npz", stored)).code == "data_type"


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    stored = np.full((1, H, W), None, dtype=object)
    stored[0, 0, 0] = Trap()
    assert problem(saved(tmp_path / "a.npy", stored)).code == "data_type"
    assert problem(saved(tmp_path / "a.npz", stored)).code == "data_type"
    assert not (tmp_path / "sprung").exists()


def test_range_and_rows_with_values_that_are_no_numbers(tmp_path: Path) -> None:
    stored = values(3, H, W, dtype="float32")
    stored[0, 0, 0], stored[1, 1, 1] = np.nan, -np.inf
    source = open_source(saved(tmp_path / "a.npy", stored))
    record = array.read_headers(source, "a.npy")[0]
    assert (record.value_low, record.value_high) == (0, 250)
    for row in (0, 1):
        with pytest.raises(FileProblem, match="not_finite"):
            array.read_pixels(source, [FrameSource("a.npy", row)])
    np.testing.assert_array_equal(array.read_pixels(source, [FrameSource("a.npy", 2)]).array[0], stored[2])
    source = open_source(saved(tmp_path / "n.npy", np.full((3, H, W), np.nan)))
    record = array.read_headers(source, "n.npy")[0]
    assert (record.value_low, record.value_high) == (None, None)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.99])
def test_truncated(tmp_path: Path, name: str, keep: float) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (20, H, W)).astype(np.uint8)
    path = saved(tmp_path / name, stored)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)])
    assert problem(path).code == "truncated"


def test_range_is_measured_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array, "BLOCK_BYTES", 64)
    stored = values(5, H, W, dtype="int16") - 100
    stored[4, -1, -1] = 3000
    source = open_source(saved(tmp_path / "a.npz", stored))
    record = array.read_headers(source, "a.npz")[0]
    assert (record.value_low, record.value_high) == (-100, 3000)


def test_array_that_is_gone(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", values(4, H, W))
    source = open_source(tmp_path)
    path.unlink()
    with pytest.raises(FileProblem, match="file_gone"):
        array.load_array(source, "a.npy")


@given(st.data())
def test_damage_gives_a_file_problem_or_images_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["a.npy", "a.npz"]))
    buffer = io.BytesIO()
    stored = values(2, H, W)
    np.save(buffer, stored) if name == "a.npy" else np.savez(buffer, images=stored)
    raw = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(2, len(raw) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / name).write_bytes(raw)
    source = open_source(folder)
    for function in (
        lambda: array.read_headers(source, name),
        lambda: array.load_array(source, name),
        lambda: array.load_rows(source, name, [0, 1]),
    ):
        try:
            function()
        except FileProblem as reason:
            assert reason.sentence
