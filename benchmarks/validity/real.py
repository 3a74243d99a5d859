"""What ``medstrata run`` and ``medstrata validate --clinical`` say of real images, written out as DICOM files.

python -m benchmarks.validity.real [--sets NAME ...] [--method dcec] [--folder build/validity-real]

A run that is there is not done again. Each set has patients and, as its clinical table, what is known of them.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from scipy.ndimage import gaussian_filter

from benchmarks.results.sets import data_folder
from medstrata.images.planning import PlanOptions
from medstrata.pipeline.job import Job
from medstrata.pipeline.runner import run_pipeline, validate_run
from medstrata.pipeline.validation_settings import ValidationSettings
from medstrata.run import RunFolder, read_json

MOST = 1500


@dataclass(frozen=True)
class Real:
    """``images`` (N, H, W[, 3]) uint8 of ``patients`` (N,); headers and clinical values (N,) by name."""

    images: NDArray[np.uint8]
    patients: list[str]
    modality: str
    clusters: int
    headers: dict[str, list[str]]
    clinical: dict[str, list[str]]


def _drawn(file: str, *names: str) -> list[NDArray[Any]]:
    arrays = np.load(data_folder() / file)
    count = len(arrays["images"])
    some = np.sort(np.random.default_rng(0).permutation(count)[:MOST])
    return [arrays[name][some] for name in ("images", *names)]


def heart() -> Real:
    """Slices of cine MR of the heart: where in the stack is on the image, the pathology on the patient."""
    images, patient, pathology, third = _drawn("acdc_cine_sax.npz", "patient", "pathology", "labels")
    table = {"pathology": pathology.tolist()}
    return Real(images, [str(one) for one in patient], "MR", len(np.unique(third)) - 1, {}, table)


def skin() -> Real:
    """Dermatoscopy; the unit is the lesion."""
    images, lesion, label = _drawn("ham10000_64.npz", "lesion", "labels")
    return Real(images, [str(one) for one in lesion], "XC", 7, {}, {"diagnosis": [f"d{one}" for one in label]})


def chest() -> Real:
    """Chest X-rays of children, in which sharpness alone tells pneumonia from normal at .84."""
    images, label = _drawn("pneumoniamnist_trainval.npz", "labels")
    names = [f"p{number}" for number in range(len(images))]
    return Real(images, names, "DX", 2, {}, {"pneumonia": ["yes" if one else "no" for one in label]})


def two_scanners() -> Real:
    """Six kinds of image, half of each through a simulated second scanner: darker, blurred and noisy."""
    images, label = _drawn("mednist.npz", "labels")
    random = np.random.default_rng(1)
    second = random.random(len(images)) < 0.5
    changed = gaussian_filter(images[second].astype(np.float32), (0, 1.2, 1.2)) * 0.7
    images = images.copy()
    images[second] = (changed + random.normal(0, 6, changed.shape)).clip(0, 255).astype(np.uint8)
    names = [f"p{number}" for number in range(len(images))]
    makers = ["Vendor B" if one else "Vendor A" for one in second]
    return Real(images, names, "OT", 6, {"Manufacturer": makers}, {"kind": [f"k{one}" for one in label]})


def kernels() -> Real:
    """Patches of one lung, reconstructed with two kernels. One patient: each patch stands for one, for want of more."""
    parts, names = [], []
    for kernel, file in (("L", "A0001_s2_kernelL_ct.nii.gz"), ("B", "A0001_s3_kernelB_ct.nii.gz")):
        volume = np.asarray(nib.load(data_folder() / "lung_ct_hu" / file).dataobj).transpose(2, 1, 0)  # type: ignore[attr-defined]
        patches = [
            volume[slice_, row : row + 48, column : column + 48]
            for slice_ in range(4, 60, 2)
            for row in range(56, 160, 48)
            for column in (40, 150)
        ]
        parts += [((np.clip(patch, -1000, 300) + 1000) / 1300 * 255).astype(np.uint8) for patch in patches]
        names += [kernel] * len(patches)
    patients = [f"p{number}" for number in range(len(parts))]
    return Real(np.stack(parts), patients, "CT", 2, {"ConvolutionKernel": names}, {})


SETS: dict[str, Callable[[], Real]] = {
    "heart (ACDC)": heart,
    "skin (HAM10000)": skin,
    "chest (PneumoniaMNIST)": chest,
    "MedNIST, two scanners": two_scanners,
    "lung, two kernels": kernels,
}


def write(real: Real, folder: Path) -> None:
    """Write one DICOM file for each image, and ``clinical.csv`` beside the folder."""
    folder.mkdir(parents=True)
    for number, image in enumerate(real.images):
        dataset = _dataset(real, number, image)
        dataset.save_as(folder / f"{number:05d}.dcm", enforce_file_format=True)
    if real.clinical:
        with open(folder.with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["patient_id", *real.clinical])
            rows.writerows(sorted(set(zip(real.patients, *real.clinical.values(), strict=True))))


def _dataset(real: Real, number: int, image: NDArray[np.uint8]) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    uid = generate_uid(entropy_srcs=[real.modality, str(number)])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SeriesInstanceUID = uid
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[real.modality, real.patients[number]])
    dataset.PatientID, dataset.Modality, dataset.BurnedInAnnotation = real.patients[number], real.modality, "NO"
    for name, values in real.headers.items():
        setattr(dataset, name, values[number])
    dataset.Rows, dataset.Columns = image.shape[:2]
    dataset.SamplesPerPixel = 3 if image.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if image.ndim == 3 else "MONOCHROME2"
    if image.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = image.tobytes() + b"\0" * (image.size % 2)
    return dataset


def examine(name: str, method: str, folder: Path) -> dict[str, Any]:
    """Run and validate one set, and return its ``validation.json``."""
    real, place = SETS[name](), folder / name.split(" ")[0].lower().strip(",")
    if not place.exists():
        write(real, place)
    out = folder / f"{place.name}-{method}"
    options = PlanOptions(n_clusters=real.clusters, method=method, goal="subtypes")
    run_pipeline(place, out, options=options, workers=1)
    table = place.with_suffix(".csv")
    settings = ValidationSettings(clinical=table if real.clinical else None)
    validate_run(Job(RunFolder(out)), settings)
    found: dict[str, Any] = read_json(out / "validation.json")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validity.real", description=__doc__.split("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--method", default="dcec")
    parser.add_argument("--folder", type=Path, default=Path("build", "validity-real"))
    given = parser.parse_args()
    for name in given.sets:
        found = examine(name, given.method, given.folder)
        print(f"\n## {name}, {given.method}\n")
        print(found["sentence"])
        for one in [*found["clusters"], *found["confounders"]["named"]]:
            print(f"- {one['sentence']}")
        for one in (found["associations"] or {"associations": []})["associations"]:
            print(f"- {one['sentence']}", flush=True)


if __name__ == "__main__":
    main()
