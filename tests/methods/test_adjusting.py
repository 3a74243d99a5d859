"""Methods that adjust for batches: the contract of every method, and a planted scanner that goes away."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.validity.adjusting import CELLS, main
from medstrata.errors import FitError
from medstrata.evidence.metrics import score
from medstrata.learning.adjustment import InBatches
from medstrata.methods.adjusting import no_maps
from medstrata.methods.files import load
from medstrata.methods.settings import make_method
from planted import squares

SMALL = {"widths": [4, 8, 16], "embedding_size": 16}
QUICK = {"warmup_epochs": 2, "warmup_steps": 0, "epochs": 2, "batch_size": 16}
NAMES = ["auto", "contrastive", "dcec", "pca"]


def method(name: str, **settings: Any) -> Any:
    quick: dict[str, Any] = {"n_clusters": 3, "device": "cpu"}
    quick |= {} if name == "pca" else {"training": QUICK, "architecture": SMALL}
    return make_method(name, {**quick, **settings})


def two_scanners(count: int = 48) -> tuple[InBatches, NDArray[np.int64]]:
    """Three groups on two scanners, one of which is brighter and of less contrast."""
    images, groups = squares(count)
    numbers = np.arange(count) // 3 % 2
    second = numbers == 1
    images[second] = (0.5 * images[second] + 110).astype(np.uint8)
    return InBatches(images, numbers, 2), groups


@pytest.mark.filterwarnings("ignore:.*cluster:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_predict_equals_labels_and_so_does_a_saved_model(name: str, tmp_path: Path) -> None:
    X, _ = two_scanners()
    model = method(name).fit(X)
    z, q = model.embed_and_assign(X)
    assert np.array_equal(q.argmax(1), model.labels_) and np.array_equal(model.predict(X), model.labels_)
    for number in range(2):
        assert np.allclose(z[X.numbers == number].mean(0), z.mean(0), atol=1e-3)
    model.save(tmp_path)
    again = load(tmp_path, "cpu")
    assert np.array_equal(again.predict_proba(X), q) and np.array_equal(again.transform(X), z)
    assert np.array_equal(method(name).fit(X).predict_proba(X), q)


def test_the_groups_come_back() -> None:
    X, groups = two_scanners()
    model = method("pca").fit(X)
    assert score(X.numbers, model.unadjusted_labels_)["purity"] > 0.8 > score(X.numbers, model.labels_)["purity"]
    assert score(groups, model.unadjusted_labels_)["accuracy"] < 0.8
    assert score(groups, model.labels_)["accuracy"] == 1


def test_vectors_are_adjusted_too() -> None:
    X, groups = two_scanners()
    vectors = InBatches(X.images.reshape(len(X), -1).astype(np.float32), X.numbers, 2)
    model = make_method("features", {"n_clusters": 3, "device": "cpu"})
    assert score(groups, model.fit(vectors).labels_)["accuracy"] == 1


def test_images_of_unknown_batches_get_what_images_without_batches_get() -> None:
    X, _ = two_scanners()
    model = method("pca").fit(X)
    with pytest.warns(UserWarning, match="none are given"):
        plain = model.predict_proba(X.images)
    assert np.array_equal(model.predict_proba(InBatches(X.images, np.full(len(X), -1), 2)), plain)
    with torch.no_grad():
        soft = model.differentiable_assignment(model.tensor(X.images))
    assert np.allclose(soft.numpy(), plain, atol=1e-6)


def test_a_subset_without_one_of_the_batches() -> None:
    """As a refit on some of the patients may be."""
    X, _ = two_scanners()
    model = method("pca").fit(X[X.numbers == 0])
    assert np.isfinite(model.predict_proba(X)).all()


def test_what_does_not_fit_is_told() -> None:
    X, _ = two_scanners()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with pytest.raises(FitError, match='assignment="graph"'):
            method("dcec", assignment="own").fit(X)
    model = method("pca").fit(X.images)
    assert model.adjustment_ is None
    with pytest.raises(FitError, match="fitted without batches"):
        model.predict(X)
    with pytest.raises(FitError, match="knows 2 batches, the images have 3"):
        method("pca").fit(X).predict(InBatches(X.images, X.numbers, 3))


def test_why_there_are_no_maps() -> None:
    X, _ = two_scanners()
    assert "no feature maps" in no_maps(method("pca").fit(X))
    trained = method("dcec").fit(X.images)
    assert no_maps(trained) == ""
    trained.adjustment_ = method("pca").fit(X).adjustment_
    assert "mixes the batches" in no_maps(trained)


def test_the_table_of_planted_scanners(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A scanner that is half of what makes a group (excess 1) is taken away with it."""
    monkeypatch.setitem(CELLS, "mixed", {name: CELLS["mixed"][name] for name in ("excess 0", "excess 1")})
    main(["mixed", "--methods", "pca", "--seeds", "1"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert float(rows[0][2]) < 0.7 and float(rows[0][3]) > 0.95 and float(rows[-1][3]) < 0.75
