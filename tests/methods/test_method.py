"""The contract that every method keeps, and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import squares
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from medstrata.errors import FitError, RunFolderError
from medstrata.learning.train import Training
from medstrata.methods import METHODS
from medstrata.methods.method import ClusteringMethod, load, make_method

QUICK = {"n_clusters": 3, "training": Training(warmup_epochs=2, warmup_steps=0, epochs=2, batch_size=16)}


def method(name: str, **settings: Any) -> ClusteringMethod:
    return make_method(name, {**QUICK, **settings})


@pytest.fixture(params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_sums(name: str, dimensions: int, channels: int) -> None:
    images, _ = squares(24, dimensions=dimensions, channels=channels)
    model = method(name).fit(images)
    z, q = model.embed_and_assign(images)
    assert model.labels_.shape == (24,) and model.labels_.dtype == np.int64
    assert q.shape == (24, 3) and np.allclose(q.sum(1), 1, atol=1e-5) and np.isfinite(z).all()
    x = model.tensor(images[:5])
    assert model.feature_maps(x).shape[0] == 5 and model.feature_maps(x).ndim == images.ndim
    assert np.allclose(model.soft_assignment(x).numpy(), q[:5], atol=1e-5)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32", "float64"])
def test_every_type_of_pixels_gives_the_same_clusters(name: str, kind: str) -> None:
    images, _ = squares(24)
    expected = method(name).fit(images).labels_
    assert np.array_equal(method(name).fit(images.astype(kind)).labels_, expected)


def test_memory_map_equals_array_and_three_axes_equal_one_channel(name: str, tmp_path: Path) -> None:
    images, _ = squares(24)
    np.save(tmp_path / "x.npy", images[:, 0])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.array_equal(method(name).fit(mapped).labels_, method(name).fit(images).labels_)


def test_saved_and_loaded_gives_the_same_assignment(name: str, tmp_path: Path) -> None:
    images, _ = squares(24)
    model = method(name).fit(images)
    model.save(tmp_path)
    again = load(tmp_path)
    assert np.array_equal(again.predict_proba(images), model.predict_proba(images))
    assert again.get_params()["training"] == model.get_params()["training"]


def test_scikit_learn_contract(name: str) -> None:
    images, _ = squares(24)
    model = method(name)
    copy = clone(model).set_params(random_state=3)
    assert copy.get_params()["random_state"] == 3 and model.random_state == 0
    labels = Pipeline([("cluster", method(name))]).fit_predict(images)
    assert np.array_equal(labels, method(name).fit(images).labels_)


@pytest.mark.parametrize("k", [1, 24])
def test_extreme_numbers_of_clusters(name: str, k: int) -> None:
    images, _ = squares(24)
    model = method(name, n_clusters=k)
    if k == 1:
        assert set(model.fit(images).labels_) == {0}
    else:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # clusters may be empty; that is said, not raised
            assert np.isfinite(model.fit(images).predict_proba(images)).all()


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (np.zeros((2, 16, 16), np.uint8), "3 clusters were asked for and there are 2 images"),
        (np.full((9, 16, 16), 7, np.uint8), "All 9 images are equal"),
        (np.full((9, 16, 16), np.nan, np.float32), "Image 0 holds NaN"),
        (np.zeros((9, 16)), "cannot be clustered"),
        (np.zeros((9, 16, 16), complex), "cannot be clustered"),
        (np.zeros((0, 16, 16)), "cannot be clustered"),
        (np.random.default_rng(0).random((9, 4, 4)), "too small"),
    ],
)
def test_bad_images_are_one_clear_sentence(name: str, images: np.ndarray, sentence: str) -> None:
    with pytest.raises(FitError, match=sentence):
        method(name).fit(images)


def test_infinite_pixel_is_named(name: str) -> None:
    images = np.random.default_rng(0).random((9, 16, 16)).astype(np.float32)
    images[5, 3, 3] = np.inf
    with pytest.raises(FitError, match="Image 5"):
        method(name).fit(images)


def test_not_fitted_and_other_shapes_are_told(name: str, tmp_path: Path) -> None:
    images, _ = squares(24)
    with pytest.raises(FitError, match="not fitted"):
        method(name).predict(images)
    with pytest.raises(FitError, match="do not fit a model"):
        method(name).fit(images).predict(images[:, :, :8, :8])
    with pytest.raises(RunFolderError, match="no model"):
        load(tmp_path)


def test_damaged_model_is_told(name: str, tmp_path: Path) -> None:
    images, _ = squares(24)
    method(name).fit(images).save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(RunFolderError, match="cannot be loaded"):
        load(tmp_path)


def test_unknown_method_and_setting_are_told() -> None:
    with pytest.raises(FitError, match="no method 'decc'"):
        make_method("decc", {})
    with pytest.raises(FitError, match="does not take"):
        make_method("dcec", {"gamma": 1})


def test_unknown_device_is_told(name: str) -> None:
    images, _ = squares(24)
    with pytest.raises(FitError, match="not available"):
        method(name, device="quantum").fit(images)


def test_documented_like_a_paper(name: str) -> None:
    import importlib

    text = importlib.import_module(METHODS[name].split(":")[0]).__doc__ or ""
    assert "arXiv" in text and "Deviations" in text and "Algorithm" in text
