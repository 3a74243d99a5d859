"""LABELS files: both kinds, partial labels, and every way in which a file does not belong to the run."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medstrata.errors import InputError
from medstrata.evidence.labels import read_labels


def sources(rows: list[tuple[str, str, int]]) -> pa.Table:
    ids, files, frames = zip(*rows, strict=True)
    return pa.table({"image_id": list(ids), "position": [0] * len(rows), "file": list(files), "frame": list(frames)})


ARRAY = sources([("id0", "set.npz", 0), ("id1", "set.npz", 1), ("id2", "set.npz", 2)])
FOLDER = sources(
    [
        ("s1", "ct/a 1.dcm", 0),
        ("s1", "ct/a2.dcm", 0),
        ("s2", "ct/b1.dcm", 0),
        ("s2", "ct/b2.dcm", 0),
        ("p1", "100%25.png", 0),
        ("t1", "pages.tif", 0),
        ("t2", "pages.tif", 1),
    ]
)
EVERY = ["p1", "s1", "s2", "t1", "t2"]


def csv_file(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array([3, 1, 3]), ["3", "1", "3"]),
        (np.array([[3], [1], [3]], dtype=np.uint8), ["3", "1", "3"]),
        (np.array([3.0, np.nan, 0.5]), ["3", "", "0.5"]),
        (np.array(["ct", "mr ", "größe"]), ["ct", "mr", "größe"]),
        (np.array([b"ct", b"", b"mr"]), ["ct", "", "mr"]),
        (np.array([True, False, True]), ["True", "False", "True"]),
    ],
)
def test_npz_is_joined_by_its_order(tmp_path: Path, labels: np.ndarray, expected: list[str]) -> None:
    np.savez(tmp_path / "labels.npz", labels=labels, images=np.zeros(3))
    found = read_labels(tmp_path / "labels.npz", ARRAY, ["id2", "id0", "id1"])
    assert found.values.tolist() == [expected[2], expected[0], expected[1]]
    assert found.count == sum(label != "" for label in expected)
    assert found.known.tolist() == [value != "" for value in found.values.tolist()]


def test_npz_takes_the_array_of_its_own_name_among_several(tmp_path: Path) -> None:
    table = sources([("a", "one/train.npz", 0), ("b", "test.npz", 0), ("c", "one/train.npz", 1), ("d", "x.png", 0)])
    np.savez(tmp_path / "train.npz", labels=[7, 8])
    found = read_labels(tmp_path / "train.npz", table, ["a", "b", "c", "d"])
    assert found.values.tolist() == ["7", "", "8", ""]
    assert found.count == 2
    (tmp_path / "train.npz").rename(tmp_path / "other.npz")
    with pytest.raises(InputError, match=r"INPUT holds 2 arrays.*CSV"):
        read_labels(tmp_path / "other.npz", table, ["a"])


@pytest.mark.parametrize("labels", [np.array([1, 2]), np.array([1, 2, 3, 4])])
def test_npz_of_another_length_is_refused(tmp_path: Path, labels: np.ndarray) -> None:
    np.savez(tmp_path / "labels.npz", labels=labels)
    with pytest.raises(InputError, match=f"{len(labels)} labels and the array in INPUT has 3 images"):
        read_labels(tmp_path / "labels.npz", ARRAY, ["id0"])


def test_npz_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "labels.npz"
    np.savez(path, y=[1, 2, 3])
    with pytest.raises(InputError, match=r"no key 'labels'.*y"):
        read_labels(path, ARRAY, ["id0"])
    np.savez(path, labels=np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"shape \(3, 2\)"):
        read_labels(path, ARRAY, ["id0"])
    np.savez(path, labels=np.array([{"a": 1}, None, 2], dtype=object))
    with pytest.raises(InputError, match="numbers or text"):
        read_labels(path, ARRAY, ["id0"])
    np.savez(path, labels=[1, 2, 3])
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match="cannot be read"):
        read_labels(path, ARRAY, ["id0"])
    np.savez(path, labels=[1, 2, 3])
    with pytest.raises(InputError, match="INPUT holds no array"):
        read_labels(path, FOLDER, EVERY)


def test_csv_by_image_id(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "Image_ID, site ,LABEL\ns1,x, chest \nt2,x,head\np1,x,\n\n")
    found = read_labels(path, FOLDER, EVERY)
    assert found.values.tolist() == ["", "chest", "", "", "head"]
    assert found.count == 2


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_by_file(tmp_path: Path, delimiter: str, encoding: str, end: str) -> None:
    rows = [("label", "file"), ("chest", "ct/a 1.dcm"), ("chest", "./ct/a2.dcm"), ("head", r"ct\b2.dcm")]
    rows += [("hand", "100%.png"), ("scan", '"pages.tif"')]
    path = csv_file(tmp_path, end.join(delimiter.join(row) for row in rows), encoding)
    assert read_labels(path, FOLDER, EVERY).values.tolist() == ["hand", "chest", "head", "scan", "scan"]


def test_a_file_may_be_named_as_the_run_lists_it(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "file,label\n100%25.png,hand\n")
    assert read_labels(path, FOLDER, ["p1"]).values.tolist() == ["hand"]


def test_label_of_an_image_that_was_not_clustered_is_left_aside(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "image_id,label\ns1,a\ns2,b\n")
    found = read_labels(path, FOLDER, ["s2"])
    assert (found.values.tolist(), found.count) == (["b"], 1)


def test_equal_repeats_are_fine_and_contradictions_are_not(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "image_id,label\ns1,a\ns1,a\n")
    assert read_labels(path, FOLDER, ["s1"]).values.tolist() == ["a"]
    path = csv_file(tmp_path, "image_id,label\ns1,a\ns2,a\ns1,b\n")
    with pytest.raises(InputError, match="lines 2 and 4 give the same image_id different labels"):
        read_labels(path, FOLDER, ["s1"])
    path = csv_file(tmp_path, "file,label\nct/a 1.dcm,a\n./ct/a 1.dcm,b\n")
    with pytest.raises(InputError, match="lines 2 and 3 give the same file different labels"):
        read_labels(path, FOLDER, ["s1"])
    path = csv_file(tmp_path, "file,label\nct/b1.dcm,b\nct/a 1.dcm,a\nct/a2.dcm,b\n")
    with pytest.raises(InputError, match=r"line 4 gives an image another label.*same series"):
        read_labels(path, FOLDER, ["s1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("image_id,label\n", "no rows"),
        ("image_id,label\n,a\n", "no rows"),
        ("image_id,class\ns1,a\n", "no column 'label'"),
        ("name,label\ns1,a\n", "no column 'image_id' or 'file'"),
        ("s1,a\ns2,b\n", "first line"),
        (
            "image_id,label\ns1,a\nx9,b\nx8,b\n",
            "2 of 3 rows name an image_id that this run does not know, the first in line 3",
        ),
        (
            "file,label\nnowhere/secret.dcm,a\n",
            "1 of 1 rows name a file that this run does not know, the first in line 2",
        ),
        ("image_id,label\nt1,a\n", "no label for any of the 2 clustered images"),
        ("image_id,label\ns1,\n", "no label for any"),
        ("image_id,label\ns1,a\x00b\n" + "x" * 200_000, "no label|neither|does not know"),
    ],
)
def test_csv_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        read_labels(csv_file(tmp_path, text), FOLDER, ["s1", "s2"] if "\x00" not in text else ["s2"])
    for original in ("x9", "x8", "secret"):
        assert original not in str(raised.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Check the path of LABELS"):
        read_labels(tmp_path / "absent.csv", FOLDER, EVERY)
    with pytest.raises(InputError, match="cannot be read"):
        read_labels(tmp_path, FOLDER, EVERY)
    with pytest.raises(InputError, match="CSV, UTF-8"):
        read_labels(csv_file(tmp_path, "file,label\nö,a\n", "latin-1"), FOLDER, EVERY)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("table.xml", "an office document is a zip too")
    (tmp_path / "labels.xlsx").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="no key 'labels'"):
        read_labels(tmp_path / "labels.xlsx", FOLDER, EVERY)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=120).map(lambda text: ("file,label\n" + text).encode()))
def test_any_bytes_give_labels_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    try:
        assert read_labels(path, FOLDER, EVERY).count > 0
    except InputError as error:
        assert str(error)
