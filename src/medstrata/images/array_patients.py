"""Whose images an ``.npz`` holds: an array ``patient`` beside ``images``, one number or text per image.

The entries are original ids, as PatientID of a DICOM header is: the catalog gets their hashes, ``private/`` alone the
ids. Equal entries are one patient, in several files of one INPUT too. An empty text or NaN is an unknown patient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from medstrata.errors import FileProblem
from medstrata.images.array_file import keys_of, open_array
from medstrata.images.listing import Source

PATIENT_KEYS = ("patient", "patients", "patient_id")  # the first of them that the file has


def read_patients(source: Source, name: str, count: int) -> list[str]:
    """Return the original id of the patient of each of ``count`` images, "" where it is unknown or there is no key.

    Raises
    ------
    FileProblem : ``array_patients`` (another length, or neither whole numbers nor text), ``truncated``
    """
    keys = keys_of(source, name)
    key = next((one for one in PATIENT_KEYS if one in keys), None)
    if key is None:
        return [""] * count
    with open_array(source, name, key) as stream:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(stream)
        if dtype.kind not in "iufSU":
            raise _refused(key, "holds neither numbers nor text")
        if shape != (count,):
            held = f"{shape[0]} entries" if len(shape) == 1 else f"the shape {shape}"
            raise _refused(key, f"has {held} for {count} images")
    with open_array(source, name, key) as stream:
        return _texts(key, npy.read_array(stream, allow_pickle=False))


def _texts(key: str, values: NDArray[Any]) -> list[str]:
    if values.dtype.kind == "f":
        known = ~np.isnan(values)
        if not (np.isfinite(values[known]) & (values[known] == np.floor(values[known]))).all():
            raise _refused(key, "holds numbers that are not whole")
        return [str(int(value)) if there else "" for value, there in zip(values.tolist(), known, strict=True)]
    try:
        texts = values.astype(np.str_) if values.dtype.kind != "S" else np.char.decode(values, "utf-8")
        found = [str(text).strip() for text in texts.tolist()]
        "".join(found).encode()  # as a table will do
    except ValueError:  # half of a character, or bytes that are none
        raise _refused(key, "holds text that is not UTF-8") from None
    return found


def _refused(key: str, what: str) -> FileProblem:
    advice = "give one whole number or text per image, or leave the key out"
    return FileProblem("array_patients", f"The array '{key}', which tells the patient of each image, {what}; {advice}.")
