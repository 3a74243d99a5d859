"""Lung CT phantoms with planted abnormalities, written as real DICOM series: data whose whole truth is known."""
