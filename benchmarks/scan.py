"""How fast headers and pixels of DICOM files are read, beside plain pydicom and gdcm's scanner.

    python -m benchmarks.scan [--files 1000] [--images 400] [--rounds 3]

All files are written to a temporary place: CT slices of a lung phantom. "headers" reads the headers of every file:
``dcmread(stop_before_pixels=True)``, gdcm's ``Scanner`` with the tags that medstrata wants, ``read_headers``, and the
whole ``scan``, which also lists the folder, groups series, checks their geometry and builds the catalog; once for the
phantom's short headers, once for headers as long as a scanner writes them. "decoders" reads compressed pixels with each
decoder that is installed (checked: all give the same pixels); "decode" is ``medstrata decode`` with 1 and 2 processes;
"second read" is the run folder's ``pixels.npy`` read again, as ``fit`` does. CPU seconds include worker processes and
their start.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import gdcm
import numpy as np
import pydicom
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from benchmarks.alternated import print_table, rounds
from medstrata.images.catalog import Catalog, scan
from medstrata.images.dicom import read_headers
from medstrata.images.dicom_frames import HEADER_TAGS
from medstrata.images.planning import make_plan
from medstrata.images.sources import open_source
from medstrata.images.store import decode
from medstrata.images.workers import Processes
from medstrata.run import no_progress
from medstrata.simulation.study import Group, Study, simulate_study

SALT = "00" * 32
SLICES = 50  # of a study
SPAN = 300.0  # mm along every axis
FEW = 10  # images that every decoder decodes
LONG_HEADER = 150  # elements
SYNTAXES = {
    "RLE": RLELossless,
    "JPEG lossless": JPEGLosslessSV1,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}

Contestants = dict[str, Callable[[], object]]


def write_files(folder: Path, files: int, size: int) -> Path:
    """Write at least ``files`` slices of ``size`` x ``size`` pixels, ``SLICES`` a series, and return their folder."""
    series = -(-files // SLICES)
    study = Study(
        patients=series,
        groups=(Group("clear", ()),),
        shape=(SLICES, size, size),
        spacing=(SPAN / SLICES, 1.13 * SPAN / size, 1.13 * SPAN / size),
    )
    simulate_study(folder / "input", study)
    return folder / "input"


def lengthen(source: Path, target: Path) -> Path:
    """Copy files, their headers filled up to ``LONG_HEADER`` elements with private ones as scanners write them."""
    for path in sorted(source.rglob("*.dcm")):
        found = pydicom.dcmread(path)
        block = found.private_block(0x0021, "BENCHMARK", create=True)
        for number in range(LONG_HEADER - len(found)):
            block.add_new(number, *(("LO", f"value {number}") if number % 3 else ("FD", float(number))))
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        found.save_as(copy)
    return target


def compressed(source: Path, target: Path, syntax: UID, count: int) -> list[Path]:
    """Copy the first ``count`` files with their pixels compressed without loss."""
    paths = []
    for path in sorted(source.rglob("*.dcm"))[:count]:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if syntax == JPEGLosslessSV1:
            _compress_by_gdcm(path, copy)
        else:
            found = pydicom.dcmread(path)
            found.compress(syntax)
            found.save_as(copy)
        paths.append(copy)
    return paths


def _compress_by_gdcm(path: Path, copy: Path) -> None:
    """pydicom has no encoder for JPEG lossless."""
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    if not reader.Read():
        raise OSError("gdcm cannot read the file")
    change.SetInput(reader.GetImage())
    if not change.Change():
        raise OSError("gdcm cannot compress the file")
    writer.SetFileName(str(copy))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    if not writer.Write():
        raise OSError("gdcm cannot write the file")


def pydicom_headers(files: list[Path]) -> None:
    for file in files:
        pydicom.dcmread(file, stop_before_pixels=True)


def gdcm_headers(files: list[Path]) -> None:
    scanner = gdcm.Scanner()
    tags = [gdcm.Tag(tag.group, tag.element) for tag in HEADER_TAGS]
    for tag in tags:
        scanner.AddTag(tag)
    names = [str(file) for file in files]
    if not scanner.Scan(names):
        raise OSError("gdcm cannot scan the files")
    for name in names:
        for tag in tags:
            scanner.GetValue(name, tag)


def medstrata_headers(folder: Path, names: list[str]) -> None:
    source = open_source(folder)
    for name in names:
        read_headers(source, name)


def medstrata_scan(folder: Path, workers: int) -> Catalog:
    return scan(open_source(folder), SALT, workers, no_progress)


def header_contestants(folder: Path) -> Contestants:
    files = sorted(folder.rglob("*.dcm"))
    names = [entry.name for entry in open_source(folder).listing()]
    return {
        "pydicom, `stop_before_pixels`": partial(pydicom_headers, files),
        "gdcm, `Scanner`": partial(gdcm_headers, files),
        "medstrata, `read_headers`": partial(medstrata_headers, folder, names),
        "medstrata, the whole scan": partial(medstrata_scan, folder, 1),
        "the whole scan, 2 processes": partial(medstrata_scan, folder, 2),
    }


def read_with(files: list[Path], plugin: str, expected: list[np.ndarray]) -> None:
    """Decode the pixels of files with one decoder of pydicom; ValueError: other pixels than ``expected``."""
    for file, pixels in zip(files, expected, strict=True):
        found = pydicom.dcmread(file)
        found.pixel_array_options(decoding_plugin=plugin)
        if not np.array_equal(found.pixel_array, pixels):
            raise ValueError(f"{plugin} decodes other pixels")


def decoder_contestants(folder: Path, syntax: UID, temporary: Path, count: int) -> Contestants:
    files = compressed(folder, temporary, syntax, count)
    expected = [pydicom.dcmread(file).pixel_array for file in sorted(folder.rglob("*.dcm"))[:count]]
    plugins = get_decoder(syntax).available_plugins
    return {plugin: partial(read_with, files, plugin, expected) for plugin in plugins}


def medstrata_decode(folder: Path, catalog: Catalog, workers: int, out: Path) -> None:
    out.mkdir(exist_ok=True)
    decode(open_source(folder), catalog, make_plan(catalog), out, workers, no_progress)


def second_read(out: Path) -> None:
    """Read all pixels of a run folder once, as training does."""
    np.array(np.load(out / "pixels.npy", mmap_mode="r"))


def start_processes(workers: int) -> None:
    """Start so many processes: a task that lasts keeps one from doing the work of all."""
    with Processes(workers) as pool:
        for waiting in [pool.submit(time.sleep, 0.2) for _ in range(2 * workers)]:
            waiting.result()


def decode_contestants(folder: Path, out: Path) -> Contestants:
    catalog = medstrata_scan(folder, 1)
    return {
        "1 process": partial(medstrata_decode, folder, catalog, 1, out),
        "2 processes": partial(medstrata_decode, folder, catalog, 2, out),
    }


def print_headers(temporary: Path, options: argparse.Namespace) -> None:
    short = write_files(temporary / "short", options.files, 128)
    for folder in (short, lengthen(short, temporary / "long")):
        files = sorted(folder.rglob("*.dcm"))
        elements = len(pydicom.dcmread(files[0], stop_before_pixels=True))
        title = f"Headers of {elements} elements, {len(files)} files"
        print_table(title, rounds(header_contestants(folder), options.rounds), len(files))
    decoding = decode_contestants(short, temporary / "out short")
    print_table(f"Decode, {len(files)} slices of 128 x 128", rounds(decoding, options.rounds), len(files))


def print_decoders(large: Path, temporary: Path, count: int) -> None:
    for label, syntax in SYNTAXES.items():
        few = decoder_contestants(large, syntax, temporary / syntax, FEW)
        print_table(f"{label}, {FEW} images of 512 x 512 with 16 bits", rounds(few, count), FEW)


def print_decode(large: Path, temporary: Path, options: argparse.Namespace) -> None:
    for label, syntax in {"uncompressed": None, **SYNTAXES}.items():
        folder, out = large, temporary / f"out {label}"
        if syntax is not None:
            folder = temporary / label
            compressed(large, folder, syntax, len(list(large.rglob("*.dcm"))))  # whole volumes
        contestants = decode_contestants(folder, out)
        contestants["1 process"]()
        contestants["second read"] = partial(second_read, out)
        images = len(list(folder.rglob("*.dcm")))
        print_table(f"Decode, {label}, {images} slices of 512 x 512", rounds(contestants, options.rounds), images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000, help="slices of 128 x 128 whose headers are read")
    parser.add_argument("--images", type=int, default=400, help="slices of 512 x 512 that are decoded")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    versions = f"pydicom {pydicom.__version__}, gdcm {gdcm.GDCM_VERSION}"
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {versions}")
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        print_headers(temporary, options)
        large = write_files(temporary / "large", options.images, 512)
        print_decoders(large, temporary, options.rounds)
        start: Contestants = {"start of 2 processes": partial(start_processes, 2)}
        print_table("Start of a pool", rounds(start, options.rounds), 1)
        print_decode(large, temporary, options)


if __name__ == "__main__":
    main()
