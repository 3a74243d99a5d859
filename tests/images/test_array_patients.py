"""Patients of the images of an ``.npz``: hashed in the catalog, kept in ``private/``, told where they are unusable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medstrata.errors import FileProblem, InputError
from medstrata.images.array_patients import PATIENT_KEYS, read_patients
from medstrata.images.catalog import Catalog, keyed_hash, scan
from medstrata.images.sources import open_source
from medstrata.pipeline.patients import by_appearance, patients_of, pseudonyms_of

IMAGES = (np.arange(4 * 9 * 9) % 251).reshape(4, 9, 9).astype(np.uint8)


def read(path: Path, **arrays: object) -> list[str]:
    np.savez(path / "a.npz", images=IMAGES, **arrays)
    return read_patients(open_source(path), "a.npz", 4)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([7, 7, -1, 0], ["7", "7", "-1", "0"]),
        (np.array([7, 8, 9, 255], np.uint8), ["7", "8", "9", "255"]),
        ([7.0, np.nan, 8, 8], ["7", "", "8", "8"]),
        (["P 007", " P2 ", "", "Ä"], ["P 007", "P2", "", "Ä"]),
        ([b"P007", b"P2", b"", "Ä".encode()], ["P007", "P2", "", "Ä"]),
    ],
)
@pytest.mark.parametrize("key", PATIENT_KEYS)
def test_numbers_and_text(tmp_path: Path, key: str, entries: object, expected: list[str]) -> None:
    assert read(tmp_path, **{key: np.array(entries)}) == expected


def test_without_a_key_and_the_first_of_several(tmp_path: Path) -> None:
    assert read(tmp_path, labels=np.arange(4), Patient=np.arange(4)) == [""] * 4
    assert read(tmp_path, patient_id=np.arange(4), patient=np.arange(4) + 10) == ["10", "11", "12", "13"]
    np.save(tmp_path / "b.npy", IMAGES)
    assert read_patients(open_source(tmp_path), "b.npy", 4) == [""] * 4


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        (np.arange(3), "has 3 entries for 4 images"),
        (np.arange(4)[:, None], r"has the shape \(4, 1\) for 4 images"),
        (np.array(5), r"has the shape \(\) for 4 images"),
        (np.array([1.5, 2, 3, 4]), "holds numbers that are not whole"),
        (np.array([np.inf, 2, 3, 4]), "holds numbers that are not whole"),
        (np.array([True, False, True, False]), "holds neither numbers nor text"),
        (np.array(["ZZYZX", None, 3, 4], dtype=object), "holds neither numbers nor text"),
        (np.array(["2004-01-19"] * 4, dtype="datetime64[D]"), "holds neither numbers nor text"),
        (np.array([b"\xff", b"", b"", b""]), "holds text that is not UTF-8"),
        (np.array(["\ud800", "", "", ""]), "holds text that is not UTF-8"),
    ],
)
def test_other_lengths_and_kinds_are_told(tmp_path: Path, entries: object, what: str) -> None:
    with pytest.raises(FileProblem, match=f"array_patients: The array 'patients', which .* {what}; give one") as raised:
        read(tmp_path, patients=entries)
    assert "ZZYZX" not in raised.value.sentence
    with pytest.raises(InputError, match=f"cannot be used: The array 'patients'.*{what}"):
        scan(open_source(tmp_path / "a.npz"), "salt")
    assert scan(open_source(tmp_path), "salt").table["skipped"].to_pylist() == ["array_patients"]


@given(st.lists(st.text(), min_size=4, max_size=4))
def test_any_text_is_a_patient_or_told(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("texts")
    stored = np.array(texts)
    try:
        found = read(folder, patient=stored)
    except FileProblem as problem:
        assert problem.code == "array_patients" and any("\ud800" <= letter <= "\udfff" for letter in "".join(texts))
        return
    assert found == [str(text).strip() for text in stored.tolist()]
    scan(open_source(folder), "salt").write(folder / "out")
    assert Catalog.read(folder / "out").sources["patient_id"].to_pylist() == found


def test_damage_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES, patient=np.array([b"PATIENTTEXT"] * 4))
    path = tmp_path / "a.npz"
    path.write_bytes(path.read_bytes().replace(b"PATIENTTEXT", b"DAMAGEDTEXT"))
    with pytest.raises(FileProblem, match="truncated"):
        read_patients(open_source(tmp_path), "a.npz", 4)


def test_the_catalog_has_pseudonyms_and_private_the_ids(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, patients in (("a.npz", ["ZZYZX-1", "ZZYZX-2", "ZZYZX-1", ""]), ("b.npz", ["ZZYZX-2"] * 4)):
        np.savez(tmp_path / "in" / name, images=IMAGES, patient=np.array(patients))
    scan(open_source(tmp_path / "in"), "salt").write(tmp_path / "out")
    catalog = Catalog.read(tmp_path / "out")
    first, second = keyed_hash("salt", "ZZYZX-1"), keyed_hash("salt", "ZZYZX-2")
    assert catalog.table["patient"].to_pylist() == [first, second, first, "", *[second] * 4]
    assert "ZZYZX" not in str(catalog.table.to_pylist())
    assert catalog.sources["patient_id"].to_pylist()[:4] == ["ZZYZX-1", "ZZYZX-2", "ZZYZX-1", ""]
    ids = catalog.table["image_id"].to_pylist()
    assert pseudonyms_of(tmp_path / "out", ids) == [first, second, first, ids[3], *[second] * 4]
    assert [int(name) for name in patients_of(tmp_path / "out", ids)] == [0, 1, 0, 2, 1, 1, 1, 1]


def test_numbers_do_not_depend_on_the_names(tmp_path: Path) -> None:
    """Names are keyed by the salt, so that their order is another one in every run folder."""
    assert by_appearance(["b", "a", "b"]).tolist() == by_appearance(["x", "y", "x"]).tolist()
