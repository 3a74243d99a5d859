"""Which random changes of images leave alone what they show: one name for all images, from their headers.

The names are those of ``learning.augment.AUGMENTATIONS``; this room knows no more of them, since it never loads torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from medstrata.images.intensity import TISSUE_SCALED, XRAY

MOST = 0.95  # share of the images that must suit one kind of change; the others then bear it too

MODALITIES = {
    "radiograph": XRAY,
    "ct": ("CT",),
    "mr": TISSUE_SCALED,
    "ultrasound": ("US", "IVUS", "BDUS"),
    "microscopy": ("SM", "GM", "CFM"),
    "skin": ("DMS",),
}
REASONS = {
    "radiograph": "Radiographs: small turns and shifts, contrast, noise; no mirror images, since side matters.",
    "ct": "CT: small turns and shifts, and noise; hardly any contrast, since Hounsfield units mean a density.",
    "mr": "Values without a fixed unit: small turns and shifts, contrast, noise; no mirror images, since side matters.",
    "ultrasound": "Ultrasound: small turns and shifts, gain, focus, noise; no mirror images, since depth matters.",
    "microscopy": "Microscopy has no upper side: any turn and mirror images, stain and focus.",
    "skin": "Pictures of the skin have no upper side: any turn and mirror images, a little colour.",
    "objects": (
        "The headers do not say what these colour pictures show: sections, mirror images of left and right, light. "
        '"skin" or "microscopy" in plan.json turn them any way.'
    ),
    "mixed": (
        "Several kinds of image, or none that the headers name: the mildest changes, which suit all. Where you know "
        'the kind, name it in plan.json, such as "radiograph", "skin" or "digits".'
    ),
}


def choose_augmentation(rows: Sequence[Mapping[str, Any]], channels: int) -> tuple[str, str]:
    """Return the name of the changes that suit at least 95 % of the catalog's ``rows``, and the reason in words.

    ``channels``: 3 where the images enter in colour. Pictures of a kind that is not known are taken as photographs of
    objects if so, and else as "mixed".
    """
    names = Counter(_name_for(row, channels) for row in rows)
    name, count = names.most_common(1)[0]
    if count < MOST * len(rows):
        name = "mixed"
    return name, REASONS[name]


def _name_for(row: Mapping[str, Any], channels: int) -> str:
    for name, modalities in MODALITIES.items():
        if row["modality"] in modalities:
            return name
    return "objects" if channels == 3 and row["channels"] >= 3 else "mixed"
