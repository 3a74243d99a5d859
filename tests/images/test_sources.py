"""INPUT of every kind, good and bad: what is listed, what is refused, and what the message says to do."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medstrata.errors import FileProblem, InputError
from medstrata.images import zipped
from medstrata.images.sources import native_name, open_source, portable_name


def write_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def names_and_codes(path: Path) -> dict[str, str]:
    return {entry.name: entry.problem.code if entry.problem else "" for entry in open_source(path).listing()}


# ---------------------------------------------------------------------------------------------------- names


@given(st.binary(max_size=40).filter(lambda name: b"\0" not in name))
def test_any_file_name_survives_the_round_trip_and_is_valid_utf8(raw: bytes) -> None:
    name = os.fsdecode(raw)
    portable = portable_name(name)
    portable.encode("utf-8")
    assert portable.isprintable() or all(ord(c) > 0x7F for c in portable if not c.isprintable())
    assert os.fsencode(native_name(portable)) == raw


@given(st.lists(st.binary(min_size=1, max_size=6), unique=True, min_size=2))
def test_different_names_stay_different(names: list[bytes]) -> None:
    assert len({portable_name(os.fsdecode(name)) for name in names}) == len(names)


def test_portable_names_written_out() -> None:
    assert portable_name("patient 1/CT_é.dcm") == "patient 1/CT_é.dcm"
    assert portable_name(os.fsdecode(b"caf\xe9.png")) == "caf%E9.png"
    assert portable_name("50%\n.png") == "50%25%0A.png"


# --------------------------------------------------------------------------------------------------- folder


def test_folder_is_listed_in_order_of_names_with_size_and_time(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.png").write_bytes(b"22")
    (tmp_path / "b" / "10.png").write_bytes(b"1")
    (tmp_path / "a.png").write_bytes(b"")
    os.utime(tmp_path / "a.png", (5, 7))
    source = open_source(tmp_path)
    assert [entry.signature[:2] for entry in source.listing()] == [("a.png", 0), ("b/10.png", 1), ("b/2.png", 2)]
    assert source.listing()[0].modified == 7
    assert source.read("b/2.png") == b"22"
    assert source.local_path("b/2.png") == tmp_path / "b" / "2.png"
    assert source.kind == "folder"


def test_name_that_is_not_utf8_can_be_read(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"data")
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    source = open_source(tmp_path)
    assert [entry.name for entry in source.listing()] == ["caf%E9.png"]
    assert source.read("caf%E9.png") == b"data"


def test_links_are_followed_only_to_unlisted_files_inside(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "input"
    (root / "sub").mkdir(parents=True)
    (root / ".git").mkdir()
    outside.mkdir()
    (outside / "secret").write_bytes(b"no")
    (root / "sub" / "image").write_bytes(b"yes")
    (root / ".git" / "stored").write_bytes(b"kept elsewhere")
    (root / "annexed").symlink_to(root / ".git" / "stored")
    (root / "again").symlink_to(root / "sub" / "image")
    (root / "out_file").symlink_to(outside / "secret")
    (root / "out_folder").symlink_to(outside)
    (root / "broken").symlink_to(root / "nothing")
    (root / "sub" / "loop").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    assert names_and_codes(root) == {
        ".git/": "system_file",
        "again": "link",
        "annexed": "",
        "broken": "link",
        "out_file": "link",
        "out_folder": "link",
        "self": "link",
        "sub/image": "",
        "sub/loop": "link",
    }
    assert open_source(root).read("annexed") == b"kept elsewhere"


def test_system_files_pipes_and_run_folders_are_rows_but_never_opened(tmp_path: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._scan.png", "scan.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "__MACOSX").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "out" / "private").mkdir(parents=True)
    (tmp_path / "out" / "private" / "salt").write_text("00")
    (tmp_path / "out" / "map.png").write_bytes(b"result")
    assert names_and_codes(tmp_path) == {
        ".DS_Store": "system_file",
        "._scan.png": "system_file",
        "Thumbs.db": "system_file",
        "__MACOSX/": "system_file",
        "desktop.ini": "system_file",
        "out/": "run_folder",
        "pipe": "not_a_file",
        "scan.png": "",
    }


def test_unreadable_folder_is_a_row_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "x.png").write_bytes(b"x")
    (tmp_path / "open.png").write_bytes(b"x")
    scandir = os.scandir

    def guarded(path: object = ".") -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", guarded)
    assert names_and_codes(tmp_path) == {"closed/": "no_permission", "open.png": ""}


def test_unreadable_file_is_a_file_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.png").write_bytes(b"x")
    source = open_source(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(FileProblem) as caught:
        source.read("x.png")
    assert caught.value.code == "no_permission"
    assert "x.png" not in str(caught.value)


def test_a_file_that_goes_and_an_input_that_goes(tmp_path: Path) -> None:
    root = tmp_path / "input"
    root.mkdir()
    (root / "a").write_bytes(b"a")
    source = pickle.loads(pickle.dumps(open_source(root)))
    with pytest.raises(FileProblem, match="file_gone"):
        source.read("b")
    root.rename(tmp_path / "moved")
    with pytest.raises(InputError, match="no longer reachable"):
        source.read("a")
    with pytest.raises(InputError, match="no longer reachable"):
        source.listing()
    root.mkdir()  # what an unmounted drive leaves behind: the same name, another folder
    with pytest.raises(InputError, match="no longer reachable"):
        source.read("a")


def test_folders_that_hold_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is empty"):
        open_source(tmp_path)
    (tmp_path / "only" / "folders").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no file"):
        open_source(tmp_path).listing()


# ----------------------------------------------------------------------------------------------- single file


def test_paths_that_cannot_be_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"does not exist.*Check the spelling"):
        open_source(tmp_path / "missing")
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(InputError, match="empty file"):
        open_source(tmp_path / "empty.png")
    with pytest.raises(InputError, match="does not exist"):
        open_source(tmp_path / "empty.png" / "below")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="neither a folder nor a file"):
        open_source(tmp_path / "pipe")

    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"may not be read.*permission"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.7z", b"7z\xbc\xaf\x27\x1c"),
        ("a.rar", b"Rar!\x1a\x07\x01\x00"),
        ("a.tar", b"x" * 257 + b"ustar\x00"),
        ("a.tgz", b"\x1f\x8b\x08" + b"\0" * 30),
        ("a.tar.bz2", b"BZh91AY"),
        ("a.tar.xz", b"\xfd7zXZ\x00"),
    ],
)
def test_archives_that_must_be_unpacked_first(tmp_path: Path, name: str, start: bytes) -> None:
    (tmp_path / name).write_bytes(start + b"\0" * 300)
    with pytest.raises(InputError, match="Unpack it first"):
        open_source(tmp_path / name)


def test_single_file(tmp_path: Path) -> None:
    path = tmp_path / "one.npy"
    path.write_bytes(b"\x93NUMPY...")
    source = open_source(path)
    assert [entry.name for entry in source.listing()] == ["one.npy"]
    assert (source.kind, source.read("one.npy"), source.local_path("one.npy")) == ("file", b"\x93NUMPY...", path)
    path.unlink()
    with pytest.raises(InputError, match="no longer reachable"):
        source.listing()


# ------------------------------------------------------------------------------------------------------ zip


def test_zip_is_listed_read_and_sought_in_place(tmp_path: Path) -> None:
    data = bytes(range(256)) * 300
    path = write_zip(tmp_path / "in.zip", {"b/x.png": data, "a.png": b"a", "__MACOSX/._a.png": b"junk"})
    before = sorted(tmp_path.iterdir())
    source = pickle.loads(pickle.dumps(open_source(path)))
    assert [(entry.name, entry.size) for entry in source.listing()] == [
        ("__MACOSX/._a.png", 4),
        ("a.png", 1),
        ("b/x.png", len(data)),
    ]
    assert names_and_codes(path) == {"__MACOSX/._a.png": "system_file", "a.png": "", "b/x.png": ""}
    assert source.read("b/x.png") == data
    with source.open("b/x.png") as file:
        assert file.read(5) == data[:5]
        file.seek(70_000)
        assert file.read(7) == data[70_000:70_007]
        file.seek(-3, os.SEEK_END)
        assert file.read() == data[-3:]
        file.seek(2)
        assert file.read(2) == data[2:4]
    assert source.local_path("a.png") is None
    assert sorted(tmp_path.iterdir()) == before  # nothing was unpacked


def test_zip_protected_by_a_password(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "in.zip", {"a.png": b"a", "b.png": b"b"})
    raw = bytearray(path.read_bytes())
    central = raw.index(b"PK\x01\x02")
    raw[central + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"password.*Unpack it with its password"):
        open_source(path)


@pytest.mark.parametrize("keep", [0.2, 0.6, 0.95])
def test_zip_cut_short(tmp_path: Path, keep: float) -> None:
    path = write_zip(tmp_path / "in.zip", {f"{i}.png": os.urandom(200) for i in range(20)})
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)])
    with pytest.raises(InputError, match=r"damaged or incomplete zip.*again"):
        open_source(path)


@given(st.data())
def test_a_zip_with_damaged_bytes_never_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"abc" * 50)
        archive.writestr("b.png", bytes(range(200)))
    raw = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(4, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "in.zip"
    path.write_bytes(raw)
    try:
        source = open_source(path)
        for entry in source.listing():
            source.read(entry.name)
    except (InputError, FileProblem) as error:
        assert str(error)


def test_damaged_member_is_a_problem_of_that_member_alone(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "in.zip", {"a.png": b"A" * 400, "b.png": b"good"}, zipfile.ZIP_STORED)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"A" * 400, b"A" * 399 + b"B"))
    source = open_source(path)
    with pytest.raises(FileProblem, match="damaged_in_archive"):
        source.read("a.png")
    assert source.read("b.png") == b"good"


def test_unsafe_names_in_a_zip_are_rows_that_are_not_opened(tmp_path: Path) -> None:
    names = ["../up.png", "a/../../up.png", "/abs.png", "C:\\abs.png", "..\\up.png", "ok..png", "a/ok.png"]
    path = write_zip(tmp_path / "in.zip", dict.fromkeys(names, b"x"))
    assert names_and_codes(path) == {name: "" if "ok" in name else "unsafe_name" for name in names}


def test_links_and_folders_in_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "in.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/hostname")
        archive.writestr("folder/", "")
        archive.writestr("a.png", "a")
    assert names_and_codes(path) == {"a.png": "", "link.png": "link"}


def declare_size(path: Path, size: int) -> None:
    """Let the first member of a zip declare ``size`` bytes, in the local and in the central header."""
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, 22, size)
    struct.pack_into("<I", raw, raw.index(b"PK\x01\x02") + 24, size)
    path.write_bytes(raw)


def test_zip_bomb_is_refused_by_what_it_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "in.zip", {"a.png": b"\0" * 10_000})
    declare_size(path, 2 * 10**9)
    with pytest.raises(InputError, match=r"would unpack to 2 GB.*unpack it yourself"):
        open_source(path)
    declare_size(path, 9 * 10**8)  # the same ratio is harmless where the total is small
    assert open_source(path).listing()[0].size == 9 * 10**8
    monkeypatch.setattr(zipped, "MAX_MEMBER_BYTES", 8 * 10**8)
    with pytest.raises(InputError, match="would unpack"):
        open_source(path)


def test_a_member_that_lies_about_its_size_is_never_read_beyond_it(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "in.zip", {"a.png": b"\0" * 5_000_000})
    declare_size(path, 1000)
    source = open_source(path)
    with source.open("a.png") as file, pytest.raises(FileProblem, match="damaged_in_archive"):
        assert len(file.read(900)) == 900
        file.read()


def test_empty_zip(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no file"):
        open_source(write_zip(tmp_path / "in.zip", {}))


def test_zip_that_goes_while_it_is_read(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "in.zip", {"a.png": b"a"})
    source = pickle.loads(pickle.dumps(open_source(path)))
    with pytest.raises(FileProblem, match="file_gone"):
        source.read("b.png")
    path.unlink()
    fresh = pickle.loads(pickle.dumps(source))
    with pytest.raises(InputError, match="no longer reachable"):
        fresh.read("a.png")


def test_a_run_folder_that_was_passed_on_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "in" / "old").mkdir(parents=True)
    (tmp_path / "in" / "a.png").write_bytes(b"x")
    for name in ("run.json", "catalog.parquet", "report.html"):
        (tmp_path / "in" / "old" / name).write_text("{}")
    entries = {entry.name: entry.problem for entry in open_source(tmp_path / "in").listing()}
    assert entries["a.png"] is None and set(entries) == {"a.png", "old/"}
    problem = entries["old/"]
    assert problem is not None and problem.code == "run_folder"
