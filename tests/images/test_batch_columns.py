"""Columns that tell batches: which may be named, and what images have in them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dicom_factory import dataset, save
from medstrata.errors import PlanError, RunFolderError
from medstrata.images.batch_columns import batch_values
from medstrata.images.catalog import keyed_hash, scan
from medstrata.images.plan import plan_from
from medstrata.images.planning import PlanOptions, make_plan
from medstrata.images.selection import check_plan
from medstrata.images.sources import open_source

CatalogOf = Callable[..., Any]
SALT = "salt"
IMAGE = {"unit": "image", "format": "dicom", "modality": "CT", "body_part": "chest", "burned_in": "no"}
IMAGE |= {"rows": 64, "columns": 64, "slices": 1, "channels": 1, "bits": 16}


def images(count: int = 30) -> list[dict[str, Any]]:
    return [
        IMAGE | {"manufacturer": "ab"[n % 2], "slice_thickness": 1.0 + n, "field_strength": 1.5} for n in range(count)
    ]


def test_options_become_a_key_of_the_plan_with_a_reason(catalog_of: CatalogOf) -> None:
    catalog = catalog_of(images())
    plan = make_plan(catalog, PlanOptions(adjust_for=("manufacturer", "site")))
    assert plan.adjust_for == ["manufacturer", "site"] and "every group is in every batch" in plan.reasons["adjust_for"]
    assert check_plan(plan, catalog).rows
    assert make_plan(catalog).adjust_for == [] and "adjust_for" not in make_plan(catalog).reasons


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        ("scanner", r"told by 'scanner'. The columns are: site, .*manufacturer"),
        ("patient", "told by 'patient'"),
        ("image_id", "told by 'image_id'"),
        ("slice_thickness", "'slice_thickness' holds 30 different numbers.*20 at most.*such as manufacturer"),
    ],
)
def test_columns_that_tell_no_batches(catalog_of: CatalogOf, column: str, sentence: str) -> None:
    catalog = catalog_of(images())
    with pytest.raises(PlanError, match=sentence):
        make_plan(catalog, PlanOptions(adjust_for=[column]))
    with pytest.raises(PlanError, match=sentence):
        check_plan(replace(make_plan(catalog), adjust_for=[column]), catalog)


@pytest.mark.parametrize("value", ["site", ["site", "site"], [1], None, {"site": 1}])
def test_wrong_values_of_the_key(catalog_of: CatalogOf, value: Any) -> None:
    values = vars(make_plan(catalog_of(images())))
    with pytest.raises(PlanError, match=r"'adjust_for' is .* but must be a list of different columns"):
        plan_from(values | {"adjust_for": value})


def test_a_plan_from_before_there_was_the_key_loads(catalog_of: CatalogOf) -> None:
    values = {key: value for key, value in vars(make_plan(catalog_of(images()))).items() if key != "adjust_for"}
    assert plan_from(values).adjust_for == []


@pytest.fixture
def out(tmp_path: Path) -> Path:
    source, out = tmp_path / "in", tmp_path / "out"
    for number, clinic in enumerate(["Zzyzxowa Clinic", "ZZYZXOWA  clinic", "Other", None]):
        values = {"InstitutionName": clinic, "Manufacturer": ["SIEMENS", "Philips"][number % 2]}
        values |= {"SliceThickness": 1.5, "SeriesInstanceUID": f"1.2.{number}"}
        save(dataset(np.full((8, 8), number, dtype=np.uint16), **values), source / f"{number}")
    scan(open_source(source), SALT).write(out)
    (out / "private" / "salt").write_text(SALT)
    return out


def test_values_are_aligned_and_sites_are_keyed_hashes(out: Path) -> None:
    ids = pq.read_table(out / "catalog.parquet")["image_id"].to_pylist()
    first, other = (f"site {keyed_hash(SALT, name)}" for name in ("zzyzxowa clinic", "other"))
    whole = batch_values(out, ["site", "manufacturer", "slice_thickness"], ids)
    makers = [values[1] for values in whole]
    assert [values[0] for values in whole] == [first, first, other, ""]
    assert (
        makers == [makers[0], makers[1]] * 2 and makers[0] != makers[1] and {values[2] for values in whole} == {"1.5"}
    )
    assert batch_values(out, ["site"], ids[::-1]) == [("",), (other,), (first,), (first,)]


def test_makers_that_are_in_no_vocabulary_are_batches_of_their_own(tmp_path: Path) -> None:
    for number, maker in enumerate(["Scanner A", "scanner  a", "Scanner B", "SIEMENS", None]):
        values = {"Manufacturer": maker, "SeriesInstanceUID": f"1.2.{number}"}
        save(dataset(np.full((8, 8), number, dtype=np.uint16), **values), tmp_path / "in" / f"{number}")
    scan(open_source(tmp_path / "in"), SALT).write(tmp_path / "out")
    ids = pq.read_table(tmp_path / "out" / "catalog.parquet")["image_id"].to_pylist()
    first, second = (f"other {keyed_hash(SALT, name, 6)}" for name in ("scanner a", "scanner b"))
    found = [value for (value,) in batch_values(tmp_path / "out", ["manufacturer"], ids)]
    assert found == [first, first, second, "Siemens", ""]


def test_what_is_missing_is_told(out: Path) -> None:
    ids = pq.read_table(out / "catalog.parquet")["image_id"].to_pylist()
    with pytest.raises(RunFolderError, match=r"1 images are not in catalog\.parquet"):
        batch_values(out, ["manufacturer"], [*ids, "unknown"])
    shutil.rmtree(out / "private")
    with pytest.raises(RunFolderError, match="sites are kept in private/ alone"):
        batch_values(out, ["site"], ids)
    (out / "catalog.parquet").unlink()
    with pytest.raises(RunFolderError, match="missing or cannot be read"):
        batch_values(out, ["manufacturer"], ids)
