"""Tables of text: every delimiter and kind of file, and every way in which a file is none."""

from __future__ import annotations

import csv
import datetime
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medstrata.errors import InputError
from medstrata.evidence.association.table_file import read_table


def written(folder: Path, data: bytes | str) -> Path:
    path = folder / "table.csv"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_and_byte_order_marks(tmp_path: Path, delimiter: str, start: str, end: str) -> None:
    lines = [["patient", "größe", "x"], ["a", " 1 ", ""], ["", "", ""], ["b", f'"2{delimiter}5"', "z"]]
    text = start + end.join(delimiter.join(cells) for cells in lines) + end
    found = read_table(written(tmp_path, text))
    assert found.names == ("patient", "größe", "x")
    assert found.rows == [["a", "1", ""], ["b", f"2{delimiter}5", "z"]]
    assert found.lines == [2, 4]
    assert found.decimal_comma == (delimiter != ",")


cells = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8).map(str.strip)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    st.integers(2, 4).flatmap(lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1)),
    st.sampled_from(",;\t"),
)
def test_what_csv_writes_is_read_again(tmp_path: Path, rows: list[list[str]], delimiter: str) -> None:
    buffer = io.StringIO(newline="")
    header = [f"c{number}" for number in range(len(rows[0]))]
    csv.writer(buffer, delimiter=delimiter).writerows([header, *rows])
    path = written(tmp_path, buffer.getvalue())
    filled = [row for row in rows if any(row)]
    if not filled:
        with pytest.raises(InputError, match="no rows"):
            read_table(path)
        return
    found = read_table(path)
    assert (found.names, found.rows) == (tuple(header), filled)


def test_parquet_is_told_by_content(tmp_path: Path) -> None:
    day = datetime.date(2020, 5, 1)
    table = pa.table(
        {
            "patient": ["a", None],
            "age": [1.5, float("nan")],
            "ill": [True, False],
            "n": pa.array([3, None]),
            "day": [day, None],
            "time": pa.array([1_588_291_200_000_000_001, None], pa.timestamp("ns")),
            "code": pa.array(["x", "y"]).dictionary_encode(),
            "raw": [b"q", b"\xff"],
        }
    )
    path = tmp_path / "table.csv"
    pq.write_table(table, path)
    found = read_table(path)
    assert found.names == tuple(table.column_names)
    assert found.rows[0][:5] == ["a", "1.5", "yes", "3", "2020-05-01"]
    assert found.rows[0][5].startswith("2020-05-01 00:00:00")
    assert found.rows[0][6:] == ["x", "q"]
    assert found.rows[1] == ["", "nan", "no", "", "", "", "y", "\ufffd"]


def test_parquet_of_lists_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"patient": ["a"], "x": [[1, 2]]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="lists or structures"):
        read_table(tmp_path / "t.parquet")


SECRET = "Zzyzx"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"patient,age\n", "no rows"),
        (f"patient,name\na,b\nc,{SECRET}é\n".encode("latin-1"), "not in UTF-8: line 3"),
        ("patient,age\na,1\n".encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04 xlsx", "spreadsheet"),
        (b"patient,age\na,1\n\x00", "null characters"),
        (b"PAR1 and nothing more", "damaged Parquet"),
        (f"patient,age\na,1\nb,1,{SECRET}\nc\n".encode(), "2 lines have another number of cells.* line 3"),
        (f'patient,age\na,1\n"{SECRET},2\nc,4\n'.encode(), "open quotation mark"),
        (f"patient,{SECRET},{SECRET.upper()}\na,1,2\n".encode(), "1 column name.* more than once"),
    ],
)
def test_what_is_no_table_says_why_and_shows_nothing_of_it(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        read_table(written(tmp_path, data))
    assert SECRET.lower() not in str(raised.value).lower()
    assert raised.value.__cause__ is None


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_table(tmp_path / "gone.csv")
    with pytest.raises(InputError, match="Is a directory"):
        read_table(tmp_path)
