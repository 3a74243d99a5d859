from __future__ import annotations

import re
import string

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from medstrata.images import vocabulary

NAMES = st.sampled_from(
    ["Grzegorzewska", "O'Hara-Nunes", "Müller", "李四", "smithson", "DOE^JANE", "19700131", "MRN0042417"]
)
TEXT = st.text(string.printable + "äöüß漢字", max_size=40)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("CHEST", "chest"),
        ("Whole Body", "wholebody"),
        ("C-SPINE", "cspine"),
        ("Mr Smith", ""),
        ("chest of Mr Smith", ""),
        ("", ""),
    ],
)
def test_body_part(text: str, code: str) -> None:
    assert vocabulary.body_part(text) == code


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SIEMENS", "Siemens"),
        ("Siemens Healthineers", "Siemens"),
        ("GE MEDICAL SYSTEMS", "GE"),
        ("G.E. Medical Systems", "GE"),
        ("Philips Medical Systems, Inc.", "Philips"),
        ("TOSHIBA_MEC", "Canon/Toshiba"),
        ("FUJIFILM Corporation", "Fujifilm"),
        ("Praxis Dr. Gerber", ""),
        ("", ""),
        ("  ", ""),
    ],
)
def test_manufacturer(text: str, name: str) -> None:
    assert vocabulary.manufacturer(text) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SOMATOM Definition AS+", "somatom definition as+"),
        ("LightSpeed Plus", "lightspeed plus"),
        ("Eclipse 1.5T", "eclipse 1.5t"),
        ("Discovery CT750 HD", "discovery ct750 hd"),
        ("Brilliance 64", "brilliance 64"),
        ("Avanto of St. Mary", "avanto"),
        ("Avanto 1970", "avanto"),
        ("MyModel", ""),
        ("64", ""),
    ],
)
def test_model(text: str, name: str) -> None:
    assert vocabulary.model(text) == name


@pytest.mark.parametrize(
    ("text", "code"),
    [("B30f", "b30f"), ("Br40d", "br40d"), ("STANDARD", "standard"), ("FC08", "fc08"), ("YA", "ya"), ("JS70", "")],
)
def test_kernel(text: str, code: str) -> None:
    assert vocabulary.kernel(text) == code


@pytest.mark.parametrize(
    ("texts", "name"),
    [
        (("t1_mprage_sag",), "t1"),
        (("AX T2 FLAIR",), "flair"),
        (("ep2d_diff_b1000", "DIFFUSION"), "dwi"),
        (("ADC map",), "adc"),
        (("Surview",), "scout"),
        (("3 plane loc",), "localizer"),
        (("Lung 1.25mm",), "lung"),
        (("TOF 3D",), "mra"),
        (("Axial", "WITH CONTRAST"), "contrast"),
        (("Grzegorzewska",), ""),
        ((), ""),
    ],
)
def test_series_class(texts: tuple[str, ...], name: str) -> None:
    assert vocabulary.series_class(texts) == name


@pytest.mark.parametrize(("text", "code"), [("pa", "PA"), ("MLO", "MLO"), ("for Dr Who", ""), ("", "")])
def test_view(text: str, code: str) -> None:
    assert vocabulary.view(text) == code


def test_short_names_of_what_is_in_no_table() -> None:
    assert vocabulary.other("3f2a9c") == "other 3f2a9c"
    names = [
        "other 3f2a9c",
        "other 000000",
        "other values",
        "other",
        "other 3f2a9",
        "other 3f2a9cd",
        "an other 3f2a9c",
        "",
    ]
    assert [vocabulary.is_other(name) for name in names] == [True, True, *[False] * 6]


def test_modality_and_photometric_are_defined_terms() -> None:
    assert [vocabulary.modality(text) for text in ("ct", "MR ", "Smith", "")] == ["CT", "MR", "", ""]
    assert vocabulary.photometric("PALETTE COLOR ") == "PALETTE COLOR"
    assert vocabulary.photometric("SMITH") == ""


@given(before=TEXT, name=NAMES, after=TEXT)
def test_planted_names_never_pass(before: str, name: str, after: str) -> None:
    text = f"{before} {name} {after}"
    plain = (vocabulary.body_part, vocabulary.model, vocabulary.kernel, vocabulary.view, vocabulary.modality)
    passed = [function(text) for function in plain] + [vocabulary.manufacturer(text), vocabulary.series_class([text])]
    pieces = [piece for piece in re.split(r"[^\w]+", name.lower()) if len(piece) > 2]
    for result in passed:
        assert not any(piece in result.lower() for piece in pieces)


@given(text=TEXT)
def test_only_words_of_the_tables_pass(text: str) -> None:
    assert vocabulary.body_part(text) in vocabulary.BODY_PARTS | {""}
    assert vocabulary.view(text) in vocabulary.VIEWS | {""}
    assert vocabulary.modality(text) in vocabulary.MODALITIES | {""}
    assert vocabulary.photometric(text) in vocabulary.PHOTOMETRICS | {""}
    assert vocabulary.manufacturer(text) in vocabulary.MANUFACTURERS
    assert vocabulary.series_class([text]) in vocabulary.SERIES_CLASSES | {""}
    assert re.fullmatch(r"[a-z0-9.+ ]*", vocabulary.model(text))
    assert re.fullmatch(r"[a-z]{1,8}|[a-z]{1,2}\d{2}[a-z]?|", vocabulary.kernel(text))


@pytest.mark.parametrize(
    ("normal", "name"),
    [
        ((0, 0, 1), "axial"),
        ((0, -1, 0), "coronal"),
        ((0.99, 0.1, 0.1), "sagittal"),
        ((0, 0.6, 0.8), "axial"),
        ((0, 0.7071, 0.7071), "oblique"),
    ],
)
def test_orientation_name(normal: tuple[float, ...], name: str) -> None:
    assert vocabulary.orientation_name(normal) == name


@given(st.tuples(*[st.floats(-1, 1, allow_nan=False)] * 3))
def test_orientation_does_not_depend_on_the_sense_of_the_normal(vector: tuple[float, ...]) -> None:
    length = float(np.linalg.norm(vector))
    assume(length > 0.01)
    normal = [component / length for component in vector]
    assert vocabulary.orientation_name(normal) == vocabulary.orientation_name([-part for part in normal])
