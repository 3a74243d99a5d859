"""The list of headers that contradict their images, on the page: the most certain first, with pictures that may be."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from medstrata.evidence.contradictions import contradictions, images_like
from medstrata.report.doubted import MOST_DOUBTED, list_doubted
from medstrata.report.folder import read_run_folder
from medstrata.report.page import write_report
from run_folder import Study, planted_2d, write_run_folder


def written(out: Path, study: Study) -> Path:
    """A run folder with contradictions.parquet of the study's own headers and labels."""
    near = images_like(np.eye(study.n_clusters, dtype=np.float32)[np.maximum(study.labels, 0)], np.array(study.ids))
    headers = {"modality": study.headers["modality"], "body_part": study.headers["body_part"]}
    write_run_folder(out, study, maps=False)
    table = contradictions(study.ids, near, headers, study.labels.astype(np.int32))
    pq.write_table(table, out / "contradictions.parquet")
    return out


def section(page: str) -> str:
    found = re.search(r'<section id="doubted">.*?</section>', page, re.DOTALL)
    return found[0] if found else ""


def test_a_planted_header_stands_on_the_page_with_its_picture(tmp_path: Path) -> None:
    study = planted_2d((30, 30, 30))
    study.headers["body_part"][4] = "head"  # cluster 0 says chest
    study.headers["burned_in"] = ["no"] * study.count
    run = read_run_folder(written(tmp_path, study))
    (one,) = list_doubted(run)
    assert (one.image_id, one.column, one.header_value, one.usual_value, one.cluster) == (
        study.ids[4],
        "body part",
        "head",
        "chest",
        0,
    )
    assert one.pictures
    shown = section(write_report(tmp_path).read_text())
    assert study.ids[4] in shown and "body part head" in shown and shown.count("<img") == 1
    assert "contradictions.parquet" not in shown, "all of them are listed"


def test_burned_in_text_is_not_shown(tmp_path: Path) -> None:
    study = planted_2d((30, 30, 30))
    study.headers["modality"][4] = "MR"
    study.headers["burned_in"] = ["yes" if row == 4 else "no" for row in range(study.count)]
    (one,) = list_doubted(read_run_folder(written(tmp_path, study)))
    assert one.image_id == study.ids[4] and one.pictures == []


def test_at_most_fifty_and_how_many_there_are(tmp_path: Path) -> None:
    study = planted_2d((600, 30))
    for row in range(MOST_DOUBTED + 5):
        study.headers["body_part"][row] = "head"
    written(tmp_path, study)
    shown = section(write_report(tmp_path).read_text())
    assert shown.count("<tr>") == MOST_DOUBTED + 1 and f"{MOST_DOUBTED} of {MOST_DOUBTED + 5}" in shown


def test_no_section_without_headers_or_without_the_table(tmp_path: Path) -> None:
    study = planted_2d()
    study.headers |= {"modality": [""] * study.count, "body_part": [""] * study.count}
    assert not section(write_report(written(tmp_path / "a", study)).read_text())
    write_run_folder(tmp_path / "b", study, maps=False)
    assert not section(write_report(tmp_path / "b").read_text())
