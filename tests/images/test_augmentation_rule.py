"""Which augmentation a catalog gets: the answer written out for each kind of image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from medstrata.images.augmentation_rule import MODALITIES, REASONS, choose_augmentation
from medstrata.images.planning import PlanOptions, make_plan
from medstrata.images.vocabulary import MODALITIES as DEFINED_TERMS

CatalogOf = Callable[..., Any]


def rows(*modalities: str, channels: int = 1) -> list[dict[str, Any]]:
    return [{"modality": modality, "channels": channels} for modality in modalities]


@pytest.mark.parametrize(
    ("modality", "channels", "name"),
    [
        ("CT", 1, "ct"),
        ("MR", 1, "mr"),
        ("PT", 1, "mr"),
        ("CR", 1, "radiograph"),
        ("DX", 1, "radiograph"),
        ("MG", 1, "radiograph"),
        ("US", 3, "ultrasound"),
        ("SM", 3, "microscopy"),
        ("DMS", 3, "skin"),
        ("XC", 3, "objects"),
        ("", 3, "objects"),
        ("", 1, "mixed"),
        ("OPT", 1, "mixed"),
    ],
)
def test_one_kind(modality: str, channels: int, name: str) -> None:
    found, reason = choose_augmentation(rows(*[modality] * 3, channels=channels), channels)
    assert (found, reason) == (name, REASONS[name])


def test_several_kinds_get_the_mildest() -> None:
    assert choose_augmentation(rows(*["SM"] * 94, *["CT"] * 6), 1)[0] == "mixed"
    assert choose_augmentation(rows(*["CT"] * 95, *["SM"] * 5), 1)[0] == "ct"
    assert choose_augmentation(rows(*["CR"] * 50, *["DX"] * 50), 1)[0] == "radiograph"


def test_colour_pictures_that_enter_as_grey_are_mixed() -> None:
    assert choose_augmentation(rows("", "", channels=3), 1)[0] == "mixed"


def test_every_modality_is_a_defined_term_and_stands_once() -> None:
    named = [modality for modalities in MODALITIES.values() for modality in modalities]
    assert len(named) == len(set(named)) and set(named) <= DEFINED_TERMS
    assert set(MODALITIES) < set(REASONS)


def test_the_plan_says_it_with_its_reason(catalog_of: CatalogOf) -> None:
    radiographs = [{"modality": "DX", "body_part": "chest", "bits": 14}] * 6
    plan = make_plan(catalog_of(radiographs), PlanOptions(method="contrastive"))
    assert (plan.augmentation, plan.reasons["augmentation"]) == ("radiograph", REASONS["radiograph"])
    slides = [{"modality": "GM", "channels": 3, "bits": 8}] * 6
    assert make_plan(catalog_of(radiographs + slides)).augmentation == "mixed"
    selected = make_plan(catalog_of(radiographs + slides), PlanOptions(select=["modality=GM"]))
    assert selected.augmentation == "microscopy"  # of the images that take part
