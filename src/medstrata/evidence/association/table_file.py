"""Read a table of text: CSV in UTF-8 with commas, semicolons or tabs, or Parquet."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medstrata.errors import InputError

UTF_16 = (b"\xff\xfe", b"\xfe\xff")
SAVE = "Save the table as CSV in UTF-8."


@dataclass(frozen=True)
class TextTable:
    """``names`` (C,) of the columns as written; ``rows`` of C cells; ``lines``: where in the file each row is.

    ``decimal_comma``: a comma does not part cells, so that "3,5" may be a number.
    """

    names: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]
    decimal_comma: bool = False


def read_table(path: Path) -> TextTable:
    """Read a CSV or a Parquet file, told apart by content. Cells lose spaces at both ends; empty rows are left out.

    Raises
    ------
    InputError : the file is missing, empty, of another kind or encoding, or a row has another number of cells than the
        header
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Check the path of the table.") from None
    if not data.strip():
        raise InputError(f"{path} is empty. Give a table with a header line and one row per patient.")
    table = _parquet(path, data) if data[:4] == b"PAR1" else _csv(path, data)
    if not table.rows:
        raise InputError(f"{path} has a header and no rows. Give one row per patient.")
    lower = [name.lower() for name in table.names if name]
    twice = len(lower) - len(set(lower))
    if twice:
        raise InputError(f"{path} has {twice} column name(s) more than once. Give each column a name of its own.")
    return table


def _csv(path: Path, data: bytes) -> TextTable:
    text = _decoded(path, data)
    first = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, lines = [], []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append([cell.strip() for cell in cells])
                lines.append(reader.line_num)
    except csv.Error:
        raise InputError(
            f"{path} is no valid CSV: line {reader.line_num} cannot be read, often because of an open quotation mark. "
            "Correct it, or save the table again."
        ) from None
    wrong = [line for cells, line in zip(rows, lines, strict=True) if len(cells) != len(rows[0])]
    if wrong:
        raise InputError(
            f"{path}: {len(wrong)} lines have another number of cells than the header, the first is line {wrong[0]}. "
            "Put cells that hold the delimiter in quotation marks."
        )
    return TextTable(tuple(rows[0]), rows[1:], lines[1:], delimiter != ",")


def _decoded(path: Path, data: bytes) -> str:
    if data[:2] == b"PK":
        raise InputError(f"{path} is a spreadsheet or an archive. {SAVE}")
    if data.startswith(UTF_16):
        raise InputError(f"{path} is in UTF-16. {SAVE}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{path} is not in UTF-8: line {line} holds another encoding's character. {SAVE}") from None
    if "\0" in text:
        raise InputError(f"{path} is no text: it holds null characters. {SAVE}")
    return text


def _parquet(path: Path, data: bytes) -> TextTable:
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (OSError, ValueError, pa.ArrowException):
        raise InputError(f"{path} is a damaged Parquet file. Write it again, or save the table as CSV.") from None
    nested = [
        name for name, kind in zip(table.column_names, table.schema.types, strict=True) if pa.types.is_nested(kind)
    ]
    if nested:
        raise InputError(f"{path} has {len(nested)} column(s) of lists or structures. Give one value per cell.")
    columns = [
        (column.cast(pa.string()) if pa.types.is_temporal(column.type) else column).to_pylist()
        for column in table.columns
    ]
    rows = [[_text(value) for value in cells] for cells in zip(*columns, strict=True)]
    return TextTable(tuple(table.column_names), rows, list(range(1, len(rows) + 1)))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace").strip()
    return str(value).strip()
