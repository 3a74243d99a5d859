"""Clinical tables joined with a run: every key, what is left out and why, and no original id anywhere."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medstrata.errors import InputError
from medstrata.evidence.association import clinical_table, columns
from medstrata.evidence.association.clinical_table import ClinicalTable, read_clinical_table, select
from medstrata.evidence.association.columns import TimeToEvent, Variable

# Image i1 and i2 are of one patient, i4 of an unknown one, i5 was left out of the run.
CATALOG = pa.table({"image_id": ["i1", "i2", "i3", "i4", "i5"], "patient": ["hA", "hA", "hB", "", "hC"]})
SOURCES = pa.table(
    {
        "image_id": ["i1", "i1", "i2", "i3", "i4", "i5"],
        "file": ["a/1.dcm", "a/2.dcm", "a/3.dcm", "b/1.dcm", "x 1.png", "c.dcm"],
        "patient_id": ["ZZYZX-007", "ZZYZX-007", "ZZYZX-007", " ZZYZX-8", "", "ZZYZX-9"],
    }
)


def read(folder: Path, text: str) -> ClinicalTable:
    path = folder / "clinical.csv"
    path.write_text(text, encoding="utf-8")
    return read_clinical_table(path, CATALOG, SOURCES)


def ages(table: ClinicalTable) -> dict[str, float]:
    (age,) = table.columns
    assert isinstance(age, Variable)
    return dict(zip(table.patients.tolist(), age.values.tolist(), strict=True))


@pytest.mark.parametrize(
    ("key", "ids"),
    [
        ("patient", ["hA", "hB", "i4"]),
        ("PATIENT", ["hA", "hB", "i4"]),
        ("image_id", ["i2", "i3", "i4"]),
        ("Image_ID", ["i1", "i3", "i4"]),
        ("file", ["a/2.dcm", ".\\b\\1.dcm", "x 1.png"]),
    ],
)
def test_every_key_joins(tmp_path: Path, key: str, ids: list[str]) -> None:
    rows = "\n".join(f"{one},{age}" for one, age in zip(ids, (60, 70, 80), strict=True))
    table = read(tmp_path, f"{key},age\n{rows}\n")
    assert ages(table) == {"hA": 60, "hB": 70, "i4": 80}
    assert (table.rows_not_used, table.columns_not_used) == ({}, {})


def test_original_ids_join_and_stay_nowhere(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        "Patient_ID,age,MRN,sex,file\nZZYZX-007,60,ZZYZX-007,f,zzyzx\nZZYZX-8,70,ZZYZX-8,m,zzyzx\n"
        "ZZYZX-9,75,ZZYZX-9,m,zzyzx\nZZYZX-unknown,1,ZZYZX-unknown,m,zzyzx\n,2,,f,\n",
    )
    assert table.patients.tolist() == ["hA", "hB", "hC"]
    assert [column.name for column in table.columns] == ["age", "sex"]
    assert table.rows_not_used == {clinical_table.UNKNOWN_ID: 1, clinical_table.NO_ID: 1}
    assert table.columns_not_used == {columns.ORIGINAL: ("MRN",), columns.KEY: ("file",)}
    assert "zzyzx" not in repr(asdict(table)).lower()


def test_a_number_that_is_the_original_id_is_no_variable(tmp_path: Path) -> None:
    sources = SOURCES.set_column(2, "patient_id", [["101", "101", "101", "205", "", "333"]])
    path = tmp_path / "t.csv"
    path.write_text("patient,number,age\nhA,101,3\nhB,205,4\nhC,333,5\n", encoding="utf-8")
    table = read_clinical_table(path, CATALOG, sources)
    assert table.columns_not_used == {columns.ORIGINAL: ("number",)}


def test_the_first_of_the_keys_counts(tmp_path: Path) -> None:
    table = read(tmp_path, "age,patient_id,patient\n1,ZZYZX-007,hB\n2,ZZYZX-8,hA\n3,ZZYZX-9,hC\n")
    assert ages(table) == {"hB": 1, "hA": 2, "hC": 3}
    assert table.columns_not_used == {columns.KEY: ("patient_id",)}


def test_repeated_rows_count_once_and_differing_ones_are_refused(tmp_path: Path) -> None:
    table = read(tmp_path, "image_id,age\ni1,60\ni2,60\ni1,60\ni3,70\ni4,80\n")
    assert ages(table) == {"hA": 60, "hB": 70, "i4": 80}
    assert table.rows_not_used == {clinical_table.REPEATED.format("patient"): 2}
    for text in ("patient_id,age\nZZYZX-007,60\nZZYZX-8,1\nZZYZX-007,61\n", "image_id,age\ni1,60\ni3,1\ni2,61\n"):
        with pytest.raises(InputError, match=r"lines 2 and 4 are of one patient and differ") as raised:
            read(tmp_path, text)
        assert "zzyzx" not in str(raised.value).lower()


def test_a_file_of_several_patients_is_counted(tmp_path: Path) -> None:
    sources = SOURCES.set_column(1, "file", [["a.npz", "a.npz", "a.npz", "a.npz", "x.png", "c.dcm"]])
    path = tmp_path / "t.csv"
    path.write_text("file,age\na.npz,1\nx.png,2\nc.dcm,3\n", encoding="utf-8")
    table = read_clinical_table(path, CATALOG, sources)
    assert table.patients.tolist() == ["i4", "hC"]
    assert table.rows_not_used == {clinical_table.SEVERAL.format("patient"): 1}


def test_images_are_not_called_patients_where_no_patient_is_known(tmp_path: Path) -> None:
    nobody = CATALOG.set_column(1, "patient", [[""] * 5])
    several = SOURCES.set_column(1, "file", [["a.npz", "a.npz", "a.npz", "b.dcm", "x.png", "c.dcm"]])
    path = tmp_path / "t.csv"
    path.write_text("image_id,age\ni1,60\ni2,61\ni2,61\ni3,70\ni4,80\n", encoding="utf-8")
    table = read_clinical_table(path, nobody, SOURCES)
    assert (table.unit, table.patients.tolist()) == ("image", ["i1", "i2", "i3", "i4"])
    assert table.rows_not_used == {"repeats an earlier row of the same image": 1}
    found, _ = select(table, np.array(["i1", "i2"]), np.array([0, 1]))
    assert found.unit == "image" and found.rows_not_used["the image is in no cluster"] == 2
    path.write_text("file,age\na.npz,60\nx.png,61\nc.dcm,61\n", encoding="utf-8")
    table = read_clinical_table(path, nobody, several)
    assert table.rows_not_used == {"the id belongs to several images of this run": 1}
    path.write_text("image_id,age\ni1,60\ni2,61\ni1,62\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"lines 2 and 4 are of one image and differ. Give one row per image."):
        read_clinical_table(path, nobody, SOURCES)
    assert read(tmp_path, "image_id,age\ni1,60\ni3,61\ni4,62\n").unit == "patient"


def test_a_table_of_another_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"none of the 2 rows has an id of this run in the column patient_id"
    ) as raised:
        read(tmp_path, "patient_id,age\nZZYZX-1,3\nZZYZX-2,4\n")
    assert "zzyzx" not in str(raised.value).lower()
    with pytest.raises(InputError, match="no column patient, image_id, patient_id or file"):
        read(tmp_path, "ZZYZX,age\nhA,3\n")


def test_columns_by_kind_and_reason(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        "patient;age;sex;Birth;note;OS_time;os_event;pfs_time;event;same;empty;x_event;\n"
        "hA;60,5;f;1.2.1950;abc;12;yes;3;1;k;;0;q\nhB;70;m;3.4.1960;def;5;no;4;0;k;NA;1;r\n"
        "hC;80;m;3.4.1960;ghi;5;;5;0;k;-;1;s\n",
    )
    kinds = {column.name: getattr(column, "kind", "time to event") for column in table.columns}
    assert kinds == {
        "age": "numeric",
        "sex": "categorical",
        "OS": "time to event",
        "pfs_time": "numeric",  # no pfs_event beside it
        "event": "categorical",
        "x_event": "categorical",
    }
    assert table.columns_not_used == {
        columns.DATES: ("Birth",),
        columns.IDENTIFIER: ("note",),
        columns.CONSTANT: ("same",),
        columns.ALL_MISSING: ("empty",),
        columns.NO_NAME: ("",),
    }


def test_parquet_gives_the_same_table(tmp_path: Path) -> None:
    pq.write_table(pa.table({"patient": ["hA", "hB", "i4"], "age": [60.0, 70.0, 80.0]}), tmp_path / "t.parquet")
    table = read_clinical_table(tmp_path / "t.parquet", CATALOG, SOURCES)
    assert ages(table) == {"hA": 60, "hB": 70, "i4": 80}


def test_thousands_of_columns_are_read(tmp_path: Path) -> None:
    header = ",".join(f"gene{number}" for number in range(4000))
    rows = [",".join(str(0.5 * number + patient) for number in range(4000)) for patient in range(3)]
    text = "\n".join(
        [f"patient,{header}", *(f"{name},{row}" for name, row in zip(("hA", "hB", "hC"), rows, strict=True))]
    )
    assert len(read(tmp_path, text).columns) == 4000


def test_select_takes_the_clustered_patients_in_the_order_of_the_table() -> None:
    age = Variable("age", "numeric", np.array([1.0, 2, 3]))
    time = TimeToEvent("os", np.array([4.0, 5, 6]), np.array([True, False, True]))
    table = ClinicalTable(np.array(["c", "a", "b"]), (age, time), {"why": 2}, {"how": ("x",)})
    found, clusters = select(table, np.array(["a", "c", "d"]), np.array([1, 0, 2]))
    assert (found.patients.tolist(), clusters.tolist()) == (["c", "a"], [0, 1])
    taken, times = found.columns
    assert isinstance(taken, Variable) and isinstance(times, TimeToEvent)
    assert (taken.values.tolist(), times.time.tolist(), times.event.tolist()) == ([1, 2], [4, 5], [True, False])
    assert found.rows_not_used == {"why": 2, clinical_table.NOT_CLUSTERED.format("patient"): 1}
    assert found.columns_not_used == table.columns_not_used
