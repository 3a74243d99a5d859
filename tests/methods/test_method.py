"""The contract that every method keeps, and bad input."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from medstrata.errors import FitError, RunFolderError
from medstrata.learning import fitting
from medstrata.methods import METHODS
from medstrata.methods.files import load
from medstrata.methods.frozen import FrozenFeatures
from medstrata.methods.method import ClusteringMethod
from medstrata.methods.principal import PrincipalComponents
from medstrata.methods.settings import make_method
from planted import squares

OF_IMAGES = [name if name != "features" else "module" for name in METHODS]  # of vectors: see test_frozen
TRAINED = [name for name in OF_IMAGES if name not in ("pca", "module")]
PAPERS = ["contrastive", "dcec", "deepmcat", "dvc"]
SMALL = {"widths": [4, 8, 16], "embedding_size": 16}
QUICK = {"warmup_epochs": 2, "warmup_steps": 0, "epochs": 2, "batch_size": 16}


class Moments(torch.nn.Module):
    """A network of images that is on disk already: the pixels, times their places along each axis."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = torch.meshgrid(*[torch.linspace(-1, 1, side) for side in x.shape[2:]], indexing="ij")
        return torch.cat([x, *[x * place for place in places]], dim=1)


MODULE = Moments()


def method(name: str, **settings: Any) -> ClusteringMethod:
    if name == "module":
        return FrozenFeatures(**{"n_clusters": 3, "module": MODULE, **settings})
    quick: dict[str, Any] = {"n_clusters": 3}
    quick |= {"training": QUICK, "architecture": SMALL} if name in TRAINED else {}
    return make_method(name, {**quick, **settings})


def loaded(name: str, folder: Path) -> ClusteringMethod:
    return load(folder, module=MODULE) if name == "module" else load(folder)


@pytest.fixture(params=OF_IMAGES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=TRAINED)
def trained(request: pytest.FixtureRequest) -> str:
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


def test_every_type_of_pixels_gives_the_same_clusters(name: str) -> None:
    images, _ = squares(24)
    expected = method(name).fit(images).labels_
    for kind in ("uint16", "int16", "float32", "float64"):
        assert np.array_equal(method(name).fit(images.astype(kind)).labels_, expected), kind


def test_memory_map_equals_array_and_three_axes_equal_one_channel(name: str, tmp_path: Path) -> None:
    images, _ = squares(24)
    np.save(tmp_path / "x.npy", images[:, 0])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.array_equal(method(name).fit(mapped).labels_, method(name).fit(images).labels_)


def test_saved_and_loaded_gives_the_same_assignment(name: str, tmp_path: Path) -> None:
    images, _ = squares(24)
    model = method(name).fit(images)
    model.save(tmp_path)
    again = loaded(name, tmp_path)
    assert np.array_equal(again.predict_proba(images), model.predict_proba(images))
    assert again.get_params() == model.get_params()


def test_numbers_of_numpy_are_numbers(name: str, tmp_path: Path) -> None:
    images, _ = squares(24)
    given = method(name).set_params(n_clusters=np.int64(3), random_state=np.int64(1))
    model = given.fit(images, checkpoint=tmp_path / "c")
    model.save(tmp_path)
    assert loaded(name, tmp_path).get_params()["n_clusters"] == 3


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
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # clusters may be empty; that is said, not raised
        model.fit(images)
    q, used = model.predict_proba(images), len(set(model.labels_.tolist()))
    assert np.isfinite(q).all() and q.shape == (24, 24)
    said = [sentence for sentence in model.warnings_ if f"Only {used} of the 24 clusters" in sentence]
    assert used == 24 or len(said) == 1


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (np.zeros((2, 16, 16), np.uint8), "3 clusters were asked for and there are 2 images"),
        (np.full((9, 16, 16), 7, np.uint8), "All 9 images are equal"),
        (np.full((9, 16, 16), np.nan, np.float32), "Image 0 holds NaN"),
        (np.zeros((9, 16)), "cannot be clustered"),
        (np.zeros((9, 16, 16), complex), "cannot be clustered"),
        (np.zeros((0, 16, 16)), "cannot be clustered"),
    ],
)
def test_bad_images_are_one_clear_sentence(name: str, images: np.ndarray, sentence: str) -> None:
    with pytest.raises(FitError, match=sentence):
        method(name).fit(images)


def test_images_smaller_than_the_encoders_stride_are_told(trained: str) -> None:
    with pytest.raises(FitError, match="too small"):
        method(trained).fit(np.random.default_rng(0).random((9, 4, 4)))


def test_infinite_pixel_is_named(name: str) -> None:
    images = np.random.default_rng(0).random((9, 16, 16)).astype(np.float32)
    images[5, 3, 3] = np.inf
    with pytest.raises(FitError, match="Image 5"):
        method(name).fit(images)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"training": {"epochs": -1}}, "epochs is -1, but must be a whole number of at least 0"),
        ({"training": {"epochs": 2.5}}, "epochs is 2.5, but must be a whole number"),
        ({"training": {"learning_rate": 0}}, "learning_rate is 0, but must be a number above 0"),
        ({"training": {"weight_decay": float("nan")}}, "weight_decay is nan"),
        ({"architecture": {"widths": []}}, "widths is ()"),
        ({"architecture": {"widths": [4.5]}}, "widths is 4.5"),
        ({"architecture": {"embedding_size": 0}}, "embedding_size is 0"),
        ({"random_state": -1}, "random_state is -1"),
        ({"random_state": None}, "'random_state' is None"),
    ],
)
def test_impossible_numbers_are_told(trained: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(FitError) as told:
        method(trained, **settings).fit(squares(24)[0])
    assert said in str(told.value)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("deepmcat", {"temperature": 0}, "temperature is 0, but must be a number above 0"),
        ("deepmcat", {"prototypes": []}, "prototypes is ()"),
        ("deepmcat", {"prototypes": [0]}, "prototypes is 0"),
        ("deepmcat", {"training": {"tolerance": 0.1}}, "DeepMCAT does not use tolerance"),
        ("auto", {"runs": 0}, "runs is 0"),
        ("auto", {"training": {"spherical_start": False}}, "does not use spherical_start"),
        ("contrastive", {"objective": {"sharpness": 0}}, "sharpness is 0"),
        ("contrastive", {"objective": {"rate": "slow"}}, "'rate' is 'slow'"),
        ("dvc", {"beta": float("nan")}, "beta is nan"),
        ("dvc", {"training": {"augmentation": "skin"}}, "DVC does not use augmentation"),
        ("dcec", {"clustering_weight": -1.0}, "clustering_weight is -1.0"),
        ("dcec", {"training": {"augmentation": "skin"}}, "DCEC does not use augmentation"),
        ("pca", {"components": 0}, "components is 0"),
    ],
)
def test_impossible_settings_of_one_method_are_told(name: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(FitError) as told:
        make_method(name, settings)
    assert said in str(told.value)


@pytest.mark.parametrize("name", ["contrastive", "deepmcat", "auto"])
def test_methods_that_compare_changed_views_say_that_nothing_changes_them(name: str) -> None:
    with pytest.warns(UserWarning, match='"none" leaves them equal.*replace'):
        model = method(name, training=QUICK | {"augmentation": "none"}).fit(squares(24)[0])
    assert sum("leaves them equal" in sentence for sentence in model.warnings_) == 1


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
        loaded(name, tmp_path)


def test_unknown_method_and_setting_are_told() -> None:
    with pytest.raises(FitError, match="no method 'decc'"):
        make_method("decc", {})
    with pytest.raises(FitError, match="does not take"):
        make_method("dcec", {"gamma": 1})


def test_unknown_device_is_told(name: str) -> None:
    images, _ = squares(24)
    with pytest.raises(FitError, match="not available"):
        method(name, device="quantum").fit(images)


def test_same_seed_gives_the_same_labels_and_embedding(name: str) -> None:
    images, _ = squares(24)
    before = images.copy()
    one, two = method(name).fit(images), method(name).fit(images)
    assert np.array_equal(one.labels_, two.labels_) and np.array_equal(one.predict(images), one.labels_)
    assert np.array_equal(one.transform(images), two.transform(images))
    assert np.array_equal(images, before)


def test_clusters_may_be_found(name: str) -> None:
    images, _ = squares(48)
    for assignment in {"own", "graph"} & set(method(name).ASSIGNMENTS):
        model = method(name, n_clusters="auto", assignment=assignment).fit(images)
        assert 1 <= model.n_clusters_ <= 48 and model.predict_proba(images).shape == (48, model.n_clusters_)


def test_every_assignment_works_and_unknown_ones_are_told(name: str, tmp_path: Path) -> None:
    images, _ = squares(24)
    for assignment in method(name).ASSIGNMENTS:
        model = method(name, assignment=assignment).fit(images)
        model.save(tmp_path / assignment)
        assert np.array_equal(loaded(name, tmp_path / assignment).predict_proba(images), model.predict_proba(images))
    with pytest.raises(FitError, match="must be one of"):
        method(name, assignment="guess").fit(images)


def test_labels_are_refused(name: str) -> None:
    images, groups = squares(24)
    with pytest.raises(FitError, match="never sees them"):
        method(name).fit(images, groups)  # type: ignore[arg-type]


class Killed(Exception):
    """Stands for kill -9 between two epochs."""


def test_killed_after_any_epoch_and_resumed_gives_the_same_result(
    trained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every phase, and in every run of a fusion."""
    monkeypatch.setattr(fitting, "SAVE_SECONDS", 0.0)
    images, _ = squares(24)
    training = {"warmup_epochs": 2, "warmup_steps": 0, "epochs": 2, "batch_size": 16, "target_interval": 2}
    settings = {"training": {**training, "tolerance": 0.0}, "n_clusters": 3, "architecture": SMALL}
    whole = make_method(trained, settings).fit(images, checkpoint=tmp_path / "whole.safetensors")
    assert len(whole.history_) == {"contrastive": 5, "auto": 8}.get(trained, 4)
    for after in range(1, len(whole.history_)):
        epochs = 0

        def kill(what: str, done: int, total: int, after: int = after) -> None:
            nonlocal epochs
            epochs += what.endswith("epochs")
            if epochs > after:
                raise Killed

        file = tmp_path / str(after) / "killed.safetensors"
        file.parent.mkdir()
        with pytest.raises(Killed):
            make_method(trained, settings).fit(images, checkpoint=file, progress=kill)
        resumed = make_method(trained, settings).fit(images, checkpoint=file)
        assert np.array_equal(resumed.transform(images), whole.transform(images)), after
        assert np.array_equal(resumed.labels_, whole.labels_) and resumed.history_ == whole.history_, after


def test_a_fit_that_was_interrupted_is_no_fit(trained: str, tmp_path: Path) -> None:
    images, _ = squares(24)
    for after in (1, 3):  # within the first phase, and within the second
        model = method(trained).fit(images)
        model.save(tmp_path / "m")
        before = model.labels_
        steps = 0

        def stop(what: str, done: int, total: int, after: int = after) -> None:
            nonlocal steps
            steps += what.endswith("epochs")
            if steps >= after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            model.fit(images, progress=stop)
        with pytest.raises(FitError, match="did not come to its end"):
            model.predict(images)
        with pytest.raises(FitError, match="did not come to its end"):
            model.save(tmp_path / "m")
        assert np.array_equal(load(tmp_path / "m").predict(images), before), "the model that was saved is still there"


def test_settings_changed_after_the_fit_are_not_saved(trained: str, tmp_path: Path) -> None:
    images, _ = squares(24)
    model = method(trained).fit(images)
    model.set_params(n_clusters=4)
    with pytest.raises(FitError, match="n_clusters was changed since the fit"):
        model.save(tmp_path)
    model.set_params(n_clusters=3, device="cpu").save(tmp_path)  # where it runs is no part of a model
    load(tmp_path).save(tmp_path / "again")
    assert np.array_equal(load(tmp_path / "again").predict(images), model.labels_)


def test_a_class_of_ones_own_is_not_saved(tmp_path: Path) -> None:
    class Other(PrincipalComponents):
        """A subclass that a user wrote."""

    with pytest.raises(FitError, match="Other is no method of medstrata"):
        Other(3).fit(squares(24)[0]).save(tmp_path)


def test_checkpoint_of_other_images_is_refused_if_one_pixel_differs(tmp_path: Path) -> None:
    images, _ = squares(40)
    method("dcec").fit(images, checkpoint=str(tmp_path / "c.safetensors"))
    images[7, 0, 3, 3] += 1
    with pytest.raises(RunFolderError, match="other settings or images"):
        method("dcec").fit(images, checkpoint=tmp_path / "c.safetensors")


def test_checkpoint_of_other_settings_or_damaged_is_refused(trained: str, tmp_path: Path) -> None:
    images, _ = squares(24)
    method(trained).fit(images, checkpoint=tmp_path / "c.safetensors")
    with pytest.raises(RunFolderError, match="other settings"):
        method(trained, random_state=1).fit(images, checkpoint=tmp_path / "c.safetensors")
    (tmp_path / "d.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(RunFolderError, match="Delete it"):
        method(trained).fit(images, checkpoint=tmp_path / "d.safetensors")


def test_a_channel_of_zeros_and_ten_volumes(name: str) -> None:
    images, _ = squares(24, channels=3)
    images[:, 1] = 0
    assert np.isfinite(method(name).fit(images).predict_proba(images)).all()
    volumes, _ = squares(10, dimensions=3)
    assert np.isfinite(method(name).fit(volumes).predict_proba(volumes)).all()


def test_one_giant_cluster_is_kept_or_told(name: str) -> None:
    import warnings

    images = np.concatenate([np.repeat(squares(1)[0], 60, axis=0), squares(3)[0]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = method(name).fit(images)
    used = len(np.unique(model.labels_))
    assert used == 3 or any("collapse" in sentence for sentence in model.warnings_)


@pytest.mark.parametrize("name", [name for name in PAPERS if name in METHODS])
def test_documented_like_a_paper(name: str) -> None:
    import importlib

    text = importlib.import_module(METHODS[name].split(":")[0]).__doc__ or ""
    assert "arXiv" in text and "Deviations" in text and "Algorithm" in text


def test_images_on_another_scale_and_broken_ones_are_told(name: str, tmp_path: Path) -> None:
    images, _ = squares(24)
    method(name).fit(images).save(tmp_path)
    model = loaded(name, tmp_path)
    with pytest.warns(UserWarning, match="Bring them to the same scale"):
        model.predict(images.astype(np.float32) / 255)
    broken = images[:2].astype(np.float32)
    broken[1, 0, 3, 3] = np.nan
    with pytest.raises(FitError, match="Image 1 holds NaN"):
        model.predict(broken)
    with pytest.raises(FitError, match=r"2\.5 clusters"):
        method(name).set_params(n_clusters=2.5).fit(images)
