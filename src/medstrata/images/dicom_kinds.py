"""Which DICOM objects are no images for us, told from their SOP class or modality, with the reason in words."""

from __future__ import annotations

from functools import lru_cache

_STORAGE = "1.2.840.10008.5.1.4.1.1."

SECONDARY_CAPTURE = _STORAGE + "7"
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"

REASONS = {
    "structured_report": "A structured report: text and measurements, no image.",
    "radiotherapy": "A radiotherapy plan, structure set, dose or treatment record, no image.",
    "key_object": "A key object selection: it points at images and holds none.",
    "presentation_state": "A presentation state: how to show other images, no image.",
    "segmentation": "A segmentation of other images, no image.",
    "waveform": "A waveform (ECG, audio or the like), no image.",
    "dicomdir": "A DICOMDIR: the table of contents of a folder; the files it lists are read themselves.",
    "document": "An encapsulated document (PDF, CDA or model), no image.",
    "whole_slide": "A tiled whole-slide image, which is not supported.",
    "raw_data": "Raw data of a scanner, no image.",
    "registration": "A registration between other images, no image.",
    "spectroscopy": "MR spectroscopy, no image.",
    "annotation": "Annotations of another image, no image.",
    "video": "A video, which is not supported.",
    "no_pixels": "A DICOM object without pixels.",
    "incomplete_header": "The header does not say how the pixels are laid out (rows, columns or bits are absent).",
    "too_many_frames": "The header claims more frames than one file can hold.",
    "too_large": "An image of more than 100 million pixels, or frames of more than 16 GB in one file.",
    "truncated": "The file ends before its pixels do; it was probably not copied completely.",
    "not_dicom": "Not a DICOM file.",
    "unreadable": "The DICOM header cannot be read",
}

_BY_CLASS = (  # the longest prefix that fits stands first
    ("88.59", "key_object"),
    ("88", "structured_report"),
    ("481.1", ""),  # RT Image is a radiograph
    ("481", "radiotherapy"),
    ("34", "radiotherapy"),
    ("11", "presentation_state"),
    ("66.4", "segmentation"),
    ("66.5", "segmentation"),
    ("66.7", "segmentation"),
    ("66.1", "registration"),
    ("66.3", "registration"),
    ("66", "raw_data"),
    ("9", "waveform"),
    ("104", "document"),
    ("77.1.6", "whole_slide"),
    ("4.2", "spectroscopy"),
    ("91", "annotation"),
)
_BY_MODALITY = {
    "SR": "structured_report",
    "RTDOSE": "radiotherapy",
    "RTSTRUCT": "radiotherapy",
    "RTPLAN": "radiotherapy",
    "RTRECORD": "radiotherapy",
    "KO": "key_object",
    "PR": "presentation_state",
    "SEG": "segmentation",
    "REG": "registration",
    "DOC": "document",
    "ANN": "annotation",
    "M3D": "document",
    "ECG": "waveform",
    "EPS": "waveform",
    "HD": "waveform",
    "AU": "waveform",
    "RESP": "waveform",
    "EEG": "waveform",
}
_VIDEO_SYNTAXES = ("1.2.840.10008.1.2.4.10", "1.2.840.10008.1.2.7.")  # MPEG2, MPEG-4, HEVC; SMPTE ST 2110


@lru_cache(256)
def not_an_image(sop_class: str, modality: str, transfer_syntax: str) -> str:
    """Return the code of the reason (a key of ``REASONS``) why such an object is no image for us, or ""."""
    if sop_class == MEDIA_DIRECTORY:
        return "dicomdir"
    if sop_class.startswith(_STORAGE):
        number = sop_class[len(_STORAGE) :]
        for prefix, code in _BY_CLASS:
            if number == prefix or number.startswith(prefix + "."):
                return code
    elif modality in _BY_MODALITY:
        return _BY_MODALITY[modality]
    return "video" if transfer_syntax.startswith(_VIDEO_SYNTAXES) else ""
