"""Masks of what maps should point at, read for ``medstrata explain --check`` and for nothing else.

A MASKS file is either

- an ``.npz`` with the key ``masks``: one mask per image of an INPUT that is an array, in the order of the array,
- or a CSV with a header line, a column ``image_id`` or ``file`` (relative to INPUT), a column ``mask`` and perhaps a
  column ``distractor``: paths relative to the CSV of NIfTI files (volumes) or of PNG or TIFF files (2-D images, of the
  same size as their image).

What is not zero is inside. Masks may cover a part of the images only.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from medstrata.errors import InputError, RunFolderError
from medstrata.evidence.labels import frames_of, read_column
from medstrata.evidence.localisation import mask_on_grid

Mask = NDArray[np.bool_]
Space = NDArray[np.float64]  # affine from array indices
COLUMNS = ("mask", "distractor")


class Masks:
    """The masks of a run's images, each brought onto the common grid when it is asked for.

    ``image_ids``: those that have a mask.

    Raises
    ------
    InputError : the file is missing, of another kind, or does not belong to this run
    RunFolderError : the run's ``private/`` folder was removed
    """

    def __init__(self, path: Path, out: Path, grid: tuple[int, ...]) -> None:
        self._path, self._grid = path, grid
        if not path.is_file():
            raise InputError(
                f"{path} is not there. Give an .npz with key masks, or a CSV with the columns file and mask."
            )
        sources = _sources(out)
        self._array: NDArray[Any] | None = None
        if path.suffix.lower() == ".npz":
            self._array = _array(path)
            self._frames = frames_of(path, sources, len(self._array), "masks")
            self.image_ids = set(self._frames)
        else:
            self._files = {name: _column(path, sources, name) for name in COLUMNS}
            self.image_ids = set(self._files["mask"])
        if not self.image_ids:
            raise InputError(f"{path} has no mask for any image of this run. Is it of another INPUT?")

    @property
    def has_distractors(self) -> bool:
        """Whether a column says where something lies that maps should not point at."""
        return self._array is None and bool(self._files["distractor"])

    def on_grid(self, image_id: str, geometry: dict[str, Any], what: str = "mask") -> Mask:
        """Return (\\*grid): the mask, or the ``distractor``, of an image on the common grid; nothing: all False.

        ``geometry``: the image's row of ``images.parquet``.

        Raises
        ------
        InputError : the mask cannot be read, or has another size than its image
        """
        mask: Mask
        whose = f"{self._path}: the {what} of image {image_id}"
        if self._array is not None:
            mask, space = np.asarray(self._array[self._frames[image_id]]) > 0, None
            if what != "mask":
                return np.zeros(self._grid, dtype=bool)
        elif image_id in self._files[what]:
            mask, space = self._read(self._files[what][image_id], whose)
        else:
            return np.zeros(self._grid, dtype=bool)
        if len(self._grid) == 2:
            return self._in_plane(mask, geometry, whose)
        grid_affine = geometry["grid_affine"]
        if grid_affine is None or space is None:
            if mask.shape != self._grid:
                raise InputError(
                    f"{whose} has shape {mask.shape}, but the grid is {self._grid}. Give one on it or with an affine."
                )
            return mask
        return mask_on_grid(mask, space, np.reshape(grid_affine, (4, 4)), self._grid)

    def _in_plane(self, mask: Mask, geometry: dict[str, Any], whose: str) -> Mask:
        expected = tuple(geometry["source_shape"][-2:])
        if mask.shape != expected:
            raise InputError(f"{whose} has shape {mask.shape}, but the image has {expected}. Give a mask of that size.")
        scale_rows, scale_columns, row, column = geometry["crop"] or (1.0, 1.0, 0.0, 0.0)
        to_source = np.array([[scale_rows, 0, row], [0, scale_columns, column], [0, 0, 1.0]])
        return mask_on_grid(mask, np.eye(3), to_source, self._grid)

    def _read(self, name: str, whose: str) -> tuple[Mask, Space | None]:
        file = self._path.parent / name
        try:
            if file.name.lower().endswith((".nii", ".nii.gz")):
                image: Any = nib.load(file)  # nibabel has no types
                inside: Mask = np.asarray(image.dataobj).transpose(2, 1, 0) > 0
                return inside, image.affine[:, [2, 1, 0, 3]]
            with Image.open(file) as picture:
                values = np.asarray(picture)
                return (values.max(axis=2) if values.ndim == 3 else values) > 0, None
        except (OSError, ValueError, Image.DecompressionBombError, nib.filebasedimages.ImageFileError) as error:
            raise InputError(
                f"{whose} cannot be read ({type(error).__name__}). Give NIfTI, PNG or TIFF files by their paths "
                "relative to the CSV."
            ) from error


def _sources(out: Path) -> pa.Table:
    file = out / "private" / "sources.parquet"
    if not file.exists():
        raise RunFolderError(f"{out} has no private/ folder, which joins images and masks. Use the original folder.")
    return pq.read_table(file)


def _column(path: Path, sources: pa.Table, name: str) -> dict[str, str]:
    try:
        return read_column(path, sources, name)
    except InputError as error:
        if name == "distractor" and "no column 'distractor'" in str(error):
            return {}
        raise


def _array(path: Path) -> NDArray[Any]:
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            if "masks" not in file.files:
                raise InputError(
                    f"{path} has no key 'masks' (it has: {', '.join(file.files)}). Save them under that key."
                )
            masks: NDArray[Any] = file["masks"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"The masks in {path} cannot be read. Save them with numpy.savez(..., masks=masks), one per image."
        ) from error
    return masks[:, 0] if masks.ndim > 3 and masks.shape[1] == 1 else masks
