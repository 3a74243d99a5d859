"""A simulated lung CT study: patients in groups that differ in a planted abnormality, written as real DICOM series.

Every voxel of it is known, so that it can be told whether a clustering found the groups and whether a map points at
the abnormality. The truth is written beside the study, never inside. The same ``Study`` gives identical bytes.
"""

from __future__ import annotations

import csv
import gzip
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medstrata.errors import PlanError, RunFolderError
from medstrata.run import Progress, folder_error, no_progress, write_json
from medstrata.simulation.phantom import (
    HIGHEST_HU,
    LOWEST_HU,
    MISREGISTRATION,
    NOISE,
    SHAPE,
    SPACING,
    Lesion,
    Phantom,
    make_phantom,
)


@dataclass(frozen=True)
class Group:
    """Patients of one kind: a name, used as label, and what they have."""

    name: str
    lesions: tuple[Lesion, ...]


GROUPS = (
    Group("ground_glass_lower_lobes", (Lesion("lower lobes", 50, -500, 4, "hazy"),)),
    Group(
        "consolidation_right_upper_lobe", (Lesion("right upper lobe", 40, 30), Lesion("right upper lobe", 10, 30, 5))
    ),
    Group("honeycomb_left_periphery", (Lesion("left periphery", 30, -350, 8, "honeycomb"),)),
)


@dataclass(frozen=True)
class Study:
    """What to simulate.

    Attributes
    ----------
    patients : their number; they are shared out evenly over the groups, in random order
    groups : what each group has
    shape, spacing : voxels (D, H, W) of each series and mm between them
    noise : standard deviation of the scanner's noise in HU
    distractor : whether every patient also has a metal object at a random place of the chest wall
    misregistration : standard deviation of a patient's position in mm, per axis
    seed : chooses everything that is random
    """

    patients: int = 60
    groups: tuple[Group, ...] = GROUPS
    shape: tuple[int, int, int] = SHAPE
    spacing: tuple[float, float, float] = SPACING
    noise: float = NOISE
    distractor: bool = False
    misregistration: float = MISREGISTRATION
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.groups or self.patients < len(self.groups):
            raise PlanError(
                f"{self.patients} patients cannot fill {len(self.groups)} groups. Ask for at least one patient a group."
            )
        if min(self.shape) < 8 or min(self.spacing) <= 0 or self.noise < 0 or self.misregistration < 0:
            raise PlanError(
                "A study needs at least 8 voxels along each axis, spacings above 0 mm, and noise and misregistration "
                "of 0 or more. Change these settings."
            )
        if self.seed < 0:
            raise PlanError("The seed must be 0 or a positive whole number.")

    def labels(self) -> NDArray[np.int64]:
        """Return the group (index into ``groups``) of each patient."""
        in_turn = np.arange(self.patients, dtype=np.int64) % len(self.groups)
        return np.random.default_rng([self.seed, 0]).permutation(in_turn)


def simulate_arrays(study: Study) -> tuple[NDArray[np.int16], NDArray[np.int64], NDArray[np.bool_]]:
    """Return volumes (N, 1, D, H, W) in HU, labels (N,) and lesion masks (N, D, H, W), as ``simulate_study`` writes."""
    volumes, lesions, _ = simulate_volumes(study)
    return volumes, study.labels(), lesions


def simulate_volumes(study: Study) -> tuple[NDArray[np.int16], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return volumes (N, 1, D, H, W) in HU and the masks (N, D, H, W) of lesions and of distractors."""
    volumes = np.empty((study.patients, 1, *study.shape), np.int16)
    lesions = np.empty((study.patients, *study.shape), np.bool_)
    distractors = np.empty_like(lesions)
    for number, phantom in enumerate(_phantoms(study)):
        volumes[number, 0], lesions[number] = _whole_hu(phantom), phantom.lesion
        distractors[number] = phantom.distractor
    return volumes, lesions, distractors


def simulate_study(out: Path, settings: Study = Study(), progress: Progress = no_progress) -> None:
    """Write one DICOM series per patient into ``out`` and the truth into the folder ``<out>-truth`` beside it.

    ``out/phantom_007/*.dcm`` is one series. The truth is ``labels.csv`` (``file`` relative to ``out``, ``label``; one
    row per file), ``groups.json`` (what each group has, and who is in it), ``lesion_phantom_007.nii.gz`` on the very
    grid of the series, ``distractor_phantom_007.nii.gz`` where there is one, and ``masks.csv`` (``file``, ``mask``,
    ``distractor``), which says whose they are.

    Raises
    ------
    RunFolderError : one of the two folders is not empty or cannot be written
    PlanError : the grid is too coarse for the lesions
    """
    out = Path(out).absolute()
    truth = out.with_name(f"{out.name}-truth")
    for folder in (out, truth):
        _refuse_unless_empty(folder)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as hidden:
            series, masks = Path(hidden, "series"), Path(hidden, "truth")
            series.mkdir()
            masks.mkdir()
            _write_all(series, masks, settings, progress)
            masks.replace(truth)
            series.replace(out)
    except OSError as error:
        raise folder_error(error, out) from error


def _refuse_unless_empty(folder: Path) -> None:
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunFolderError(
                f"{folder} exists and is not an empty folder. Name a new folder, or remove this one first."
            )
    except OSError as error:
        raise folder_error(error, folder) from error


def _phantoms(study: Study) -> Iterator[Phantom]:
    for number, label in enumerate(study.labels()):
        yield make_phantom(
            study.groups[label].lesions,
            np.random.default_rng([study.seed, 1, number]),
            study.shape,
            study.spacing,
            study.noise,
            study.distractor,
            study.misregistration,
        )


def _whole_hu(phantom: Phantom) -> NDArray[np.int16]:
    return np.clip(np.rint(phantom.volume), LOWEST_HU, HIGHEST_HU).astype(np.int16)


def _write_all(series: Path, truth: Path, study: Study, progress: Progress) -> None:
    labels = study.labels()
    members: list[list[str]] = [[] for _ in study.groups]
    rows: list[tuple[str, str]] = []
    masks: list[tuple[str, str, str]] = []
    for number, phantom in enumerate(_phantoms(study)):
        progress("simulate", number, study.patients)
        name = f"phantom_{number:03d}"
        group = int(labels[number])
        origin = _origin(study, number)
        files = _write_series(series / name, phantom, study, number, origin)
        rows += [(f"{name}/{file}", study.groups[group].name) for file in files]
        other = f"distractor_{name}.nii.gz" if study.distractor else ""
        masks += [(f"{name}/{file}", f"lesion_{name}.nii.gz", other) for file in files]
        members[group].append(name)
        (truth / f"lesion_{name}.nii.gz").write_bytes(_nifti(phantom.lesion, study.spacing, origin))
        if study.distractor:
            (truth / f"distractor_{name}.nii.gz").write_bytes(_nifti(phantom.distractor, study.spacing, origin))
    progress("simulate", study.patients, study.patients)
    with open(truth / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("file", "label"), *rows])
    with open(truth / "masks.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("file", "mask", "distractor"), *masks])
    settings = asdict(study)
    described = [{**one, "patients": who} for one, who in zip(settings.pop("groups"), members, strict=True)]
    write_json(truth / "groups.json", {"study": settings, "groups": described})


def _origin(study: Study, number: int) -> NDArray[np.float64]:
    """Return the position (x, y, z) in mm, DICOM's axes, of the first voxel: the couch stands elsewhere each time."""
    couch = np.random.default_rng([study.seed, 2, number]).uniform((-5, -190, -900), (5, -140, -700)).round(1)
    _, rows, columns = study.shape
    centre = np.array([(columns - 1) * study.spacing[2] / 2, (rows - 1) * study.spacing[1] / 2, 0.0])
    origin: NDArray[np.float64] = couch - centre
    return origin


def _nifti(mask: NDArray[np.bool_], spacing: tuple[float, float, float], origin: NDArray[np.float64]) -> bytes:
    """Return a mask (D, H, W) as a gzipped NIfTI file whose voxels lie where the series has them, in RAS+ mm."""
    affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
    affine[:3, 3] = origin * [-1, -1, 1]
    image = nib.Nifti1Image(mask.transpose(2, 1, 0).astype(np.uint8), affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _write_series(folder: Path, phantom: Phantom, study: Study, number: int, origin: NDArray[np.float64]) -> list[str]:
    """Write one file per slice; return their names in the order of the slices."""
    folder.mkdir()
    rng = np.random.default_rng([study.seed, 3, number])
    slices = study.shape[0]
    numbers = _instance_numbers(rng, slices)
    names = [f"IM{k + 1:05d}.dcm" for k in rng.permutation(slices)]
    stored = (_whole_hu(phantom).astype(np.int32) - LOWEST_HU).astype("<u2")
    dataset = _headers(study, number)
    for k in range(slices):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = _uid(study, number, f"instance {k}")
        dataset.InstanceNumber = int(numbers[k])
        height = origin[2] + k * study.spacing[0]
        dataset.ImagePositionPatient = [f"{v:.6g}" for v in (origin[0], origin[1], height)]
        dataset.SliceLocation = f"{height:.6g}"
        dataset.PixelData = stored[k].tobytes()
        dataset.save_as(folder / names[k], enforce_file_format=True)
    return names


def _instance_numbers(rng: np.random.Generator, slices: int) -> NDArray[np.int64]:
    """Return the slices' numbers: upwards, downwards or in no order, as real archives have them."""
    upwards = np.arange(1, slices + 1, dtype=np.int64)
    return (upwards, upwards[::-1], rng.permutation(upwards))[int(rng.integers(3))]


def _uid(study: Study, number: int, what: str) -> UID:
    return generate_uid(entropy_srcs=[repr(study), str(number), what])


def _headers(study: Study, number: int) -> Dataset:
    """Return the headers that all slices of one patient share."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    dataset = Dataset()
    dataset.file_meta = meta
    _identify(dataset, study, number)
    dataset.SOPClassUID = CTImageStorage
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Modality = "CT"
    dataset.BodyPartExamined = "CHEST"
    dataset.BurnedInAnnotation = "NO"
    dataset.KVP = "120"
    dataset.ConvolutionKernel = "SOFT"
    dataset.PatientPosition = "HFS"
    dataset.SliceThickness = f"{study.spacing[0]:g}"
    dataset.PixelSpacing = [f"{study.spacing[1]:g}", f"{study.spacing[2]:g}"]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PositionReferenceIndicator = ""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = study.shape[1:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = str(LOWEST_HU), "1", "HU"
    dataset.WindowCenter, dataset.WindowWidth = "-600", "1500"
    return dataset


def _identify(dataset: Dataset, study: Study, number: int) -> None:
    dataset.PatientName = f"Phantom^{number:03d}"
    dataset.PatientID = f"PHANTOM{number:03d}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = ""
    dataset.StudyInstanceUID = _uid(study, number, "study")
    dataset.SeriesInstanceUID = _uid(study, number, "series")
    dataset.FrameOfReferenceUID = _uid(study, number, "frame of reference")
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20200102"
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "120000"
    dataset.StudyID, dataset.SeriesNumber, dataset.AcquisitionNumber = "1", 2, 1
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Simulated chest CT"
    dataset.SeriesDescription = "Lung 1.0 simulated"
    dataset.Manufacturer = "medstrata phantom"
    dataset.ManufacturerModelName = "phantom"
