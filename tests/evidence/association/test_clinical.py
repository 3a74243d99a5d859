"""The whole clinical association: planted differences found, shuffled ones not, and what can be written as JSON."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from medstrata.evidence.association import clinical
from medstrata.evidence.association.clinical import associate, chance, short
from medstrata.evidence.association.clinical_table import NOT_CLUSTERED, ClinicalTable, read_clinical_table
from medstrata.evidence.association.columns import TimeToEvent, Variable
from medstrata.evidence.association.effects import FEW_UNITS
from medstrata.evidence.association.table_one import markdown, table_one

N = 90
PATIENTS = np.array([f"p{number:03d}" for number in range(N)])
CLUSTERS = np.arange(N) % 3


def numeric(name: str, values: np.ndarray) -> Variable:
    return Variable(name, "numeric", np.asarray(values, dtype=np.float64))


def text(name: str, values: np.ndarray) -> Variable:
    return Variable(name, "categorical", np.asarray(values, dtype=np.str_))


def gaps(generator: np.random.Generator, values: np.ndarray, share: float, gap: object) -> np.ndarray:
    return np.where(generator.random(len(values)) < share, gap, values)


def mixed_columns(generator: np.random.Generator, n: int) -> tuple[Variable | TimeToEvent, ...]:
    """Ten columns of every kind that know nothing of the clusters."""
    return (
        numeric("age", generator.normal(60, 10, n)),
        numeric("marker", generator.lognormal(size=n)),
        numeric("score", generator.integers(0, 4, n)),
        numeric("volume", gaps(generator, generator.normal(size=n), 0.2, np.nan)),
        numeric("dose", generator.exponential(size=n)),
        text("sex", generator.choice(["f", "m"], n)),
        text("stage", generator.choice(["I", "II", "III", "IV"], n, p=[0.5, 0.3, 0.15, 0.05])),
        text("rare", generator.choice(["no", "yes"], n, p=[0.95, 0.05])),
        text("site", gaps(generator, generator.choice(["a", "b", "c"], n), 0.1, "")),
        TimeToEvent("os", generator.exponential(10, n), generator.random(n) < 0.6),
    )


@pytest.fixture(scope="module")
def planted() -> ClinicalTable:
    generator = np.random.default_rng(0)
    group = CLUSTERS
    return ClinicalTable(
        PATIENTS,
        (
            numeric("age", generator.normal(60 + 8 * group, 10)),
            numeric("height", generator.normal(170, 8, N)),
            text("smoker", np.where(generator.random(N) < 0.15 + 0.3 * group, "yes", "no")),
            text("blood", generator.choice(["A", "B", "0"], N)),
            numeric("lab", np.where((group == 1) & (generator.random(N) < 0.6), np.nan, generator.normal(size=N))),
            TimeToEvent("death", generator.exponential(np.array([5.0, 10, 40])[group]), np.ones(N, dtype=bool)),
        ),
        {"the id is not known to this run": 2},
        {"dates": ("birth",)},
    )


def test_planted_differences_are_found_and_no_others(planted: ClinicalTable) -> None:
    found = associate(planted, PATIENTS, CLUSTERS)
    findings = {(one["variable"], one["kind"]) for one in found["associations"] if one["finding"]}
    assert findings == {
        ("age", "numeric"),
        ("smoker", "categorical"),
        ("lab", "missing values"),
        ("death", "time to event"),
    }
    assert (found["findings"], found["tests"], found["not_tested"]) == (4, 7, {})
    assert (found["patients"], found["without_row"], found["sizes"]) == (N, 0, {"0": 30, "1": 30, "2": 30})
    assert found["rows_not_used"] == {"the id is not known to this run": 2}
    assert found["columns_not_used"] == {"dates": ["birth"]}
    (age,) = (one for one in found["associations"] if one["variable"] == "age")
    assert age["sentence"] == (
        f"age differs between clusters (omega squared {short(age['effect'])}, {short(age['low'])} to "
        f"{short(age['high'])}; {chance('q', age['q'])})."
    )
    sentences = {(one["variable"], one["kind"]): one["sentence"] for one in found["associations"]}
    assert sentences["height", "numeric"].startswith("height was not found to differ between clusters (")
    assert sentences["lab", "missing values"].startswith("How often lab is missing differs between clusters (Cramér's")
    assert sentences["death", "time to event"].startswith(
        "Time to death differs between clusters (log-rank, 90 events in 90 patients; q < .001"
    )


def test_q_is_corrected_over_every_test_of_the_table(planted: ClinicalTable) -> None:
    found = associate(planted, PATIENTS, CLUSTERS)["associations"]
    assert [one["q"] for one in found] == pytest.approx(multipletests([one["p"] for one in found], method="fdr_bh")[1])
    assert {one["kind"] for one in found} == {"numeric", "categorical", "missing values", "time to event"}


def test_the_result_is_json_and_the_same_every_time(planted: ClinicalTable) -> None:
    found = associate(planted, PATIENTS, CLUSTERS, seed=3)
    written = json.dumps(found, allow_nan=False)
    assert written == json.dumps(associate(planted, PATIENTS, CLUSTERS, seed=3))
    assert not any(name in written for name in PATIENTS)


def test_order_and_names_of_clusters_do_not_matter(planted: ClinicalTable) -> None:
    order = np.random.default_rng(1).permutation(N)
    one = associate(planted, PATIENTS, CLUSTERS)["associations"]
    other = associate(planted, PATIENTS[order], 7 - CLUSTERS[order])["associations"]
    assert [entry["statistic"] for entry in one] == pytest.approx([entry["statistic"] for entry in other])


def test_one_patient_per_cluster_and_no_patient_at_all(planted: ClinicalTable) -> None:
    for patients in (PATIENTS[:3], PATIENTS[:0]):
        found = associate(planted, patients, np.arange(len(patients)))
        json.dumps(found, allow_nan=False)
        assert (found["tests"], found["findings"], found["patients"]) == (0, 0, len(patients))
        assert sum(found["not_tested"].values()) == len(planted.columns)
        assert all(one["p"] is None and one["q"] is None for one in found["associations"])
        assert found["rows_not_used"][NOT_CLUSTERED.format("patient")] == N - len(patients)
        assert table_one(planted, patients, np.arange(len(patients)), found).rows
    found = associate(planted, PATIENTS[:3], np.arange(3))
    assert found["not_tested"] == {FEW_UNITS: 6}
    assert found["associations"][0]["sentence"] == f"age was not tested: {FEW_UNITS}."


def test_patients_without_a_row_are_counted(planted: ClinicalTable) -> None:
    found = associate(planted, np.append(PATIENTS, ["q1", "q2"]), np.append(CLUSTERS, [0, 1]))
    assert (found["patients"], found["without_row"]) == (N, 2)


def shuffled_findings(tables: int, n: int, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(clinical, "DRAWS", 2)  # of the intervals, which decide nothing
    generator = np.random.default_rng(5)
    patients, found = np.array([f"p{number}" for number in range(n)]), 0
    for seed in range(tables):
        table = ClinicalTable(patients, mixed_columns(generator, n))
        clusters = generator.permutation(np.repeat([0, 1, 2], [n // 2, n // 3, n - n // 2 - n // 3]))
        found += associate(table, patients, clusters, seed)["findings"] > 0
    return found


def test_shuffled_tables_give_findings_at_their_nominal_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shuffled_findings(60, 60, monkeypatch) <= stats.binom.ppf(0.975, 60, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("n", [30, 60, 200])
def test_shuffled_tables_in_full(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = shuffled_findings(200, n, monkeypatch)
    low, high = stats.binom.ppf([0.025, 0.975], 200, 0.05)
    assert low <= found <= high


def test_thousands_of_columns_take_bounded_time() -> None:
    generator = np.random.default_rng(2)
    wide = [numeric(f"gene{number}", generator.normal(size=N)) for number in range(1500)]
    wide += [text(f"mutation{number}", generator.choice(["no", "yes"], N, p=[0.97, 0.03])) for number in range(1500)]
    start = time.monotonic()
    found = associate(ClinicalTable(PATIENTS, tuple(wide)), PATIENTS, CLUSTERS)
    assert time.monotonic() - start < 60
    assert len(found["associations"]) == 3000
    assert found["findings"] <= 2


def test_a_file_goes_all_the_way_and_shows_no_original_id(tmp_path: Path) -> None:
    ids = [f"ZZYZX-{number:04d}" for number in range(N)]
    images = [f"i{number}" for number in range(N)]
    catalog = pa.table({"image_id": images, "patient": PATIENTS.tolist()})
    sources = pa.table({"image_id": images, "file": [f"zzyzx/{one}.dcm" for one in ids], "patient_id": ids})
    rows = [
        f"{one},{one},{40 + 9 * group + number % 7},{'mf'[group % 2]},{one} was seen"
        for number, (one, group) in enumerate(zip(ids, CLUSTERS, strict=True))
    ]
    path = tmp_path / "table.csv"
    path.write_text(
        "\n".join(["patient_id,hospital number,age,sex,remark", *rows, "ZZYZX-x,,1,m,zzyzx"]), encoding="utf-8"
    )
    table = read_clinical_table(path, catalog, sources)
    found = associate(table, PATIENTS, CLUSTERS)
    assert found["findings"] == 2
    everything = json.dumps(found) + repr(table) + markdown(table_one(table, PATIENTS, CLUSTERS, found))
    assert "zzyzx" not in everything.lower()
    assert "was seen" not in everything


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0001, "q < .001"), (0.003, "q = .003"), (0.04996, "q = .0500"), (0.0496, "q = .0496"), (1.0, "q = 1.000")],
)
def test_chances_in_words(value: float, said: str) -> None:
    assert chance("q", value) == said


def test_numbers_between_0_and_1_in_words() -> None:
    assert [short(value) for value in (0.124, 1.0, 0.0)] == [".12", "1.00", ".00"]
