"""Promises of restoring into Keras models: everything compared first, then the same bits, or nothing."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras_models import BACKEND, compiled, data, predictions, small, values

from mvc_callbacks import VersionStore, restore_version
from mvc_callbacks.errors import IncompatibleModel, Misconfigured, MissingHyperparameters, MVCWarning
from mvc_callbacks.keras import VersionCheckpoint
from mvc_callbacks.keras_state import state_digests
from mvc_callbacks.tensors import weights_digest

X, Y = data()


def trained(model: Any, store: VersionStore, run: str = "run", **options: Any) -> Any:
    """Train for a moment, and return the model as its last version holds it."""
    callback = VersionCheckpoint(store, run=run, **options)
    x = options.pop("x", X)
    model.fit(x, Y, batch_size=16, epochs=1, verbose=0, callbacks=[callback])
    return model


def digest(model: Any) -> str:
    return weights_digest(state_digests(model.variables))


def sequential() -> Any:
    return compiled(keras.Sequential([keras.Input((4,)), keras.layers.Dense(5), keras.layers.Dense(1)]))


def nested() -> Any:
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5), keras.layers.BatchNormalization()])
    inputs = keras.Input((4,))
    return compiled(keras.Model(inputs, keras.layers.Dense(1)(inner(inner(inputs)[:, :4]))))


def shared() -> Any:
    layer, left, right = keras.layers.Dense(3), keras.Input((4,)), keras.Input((4,))
    both = keras.layers.concatenate([layer(left), layer(right)])
    return compiled(keras.Model([left, right], keras.layers.Dense(1)(both)))


class Subclassed(keras.Model):
    def __init__(self, units: int = 6) -> None:
        super().__init__()
        self.hidden = [keras.layers.Dense(units, activation="tanh"), keras.layers.Dropout(0.1)]
        self.out = keras.layers.Dense(1)

    def call(self, x: Any, training: bool = False) -> Any:
        for layer in self.hidden:
            x = layer(x, training=training) if isinstance(layer, keras.layers.Dropout) else layer(x)
        return self.out(x)


def twice_the_same_path() -> Any:
    inputs = keras.Input((4,))
    model = keras.Model(
        inputs, keras.layers.Dense(1, name="same")(keras.layers.Dense(4, name="other")(inputs))
    )
    model.layers[1].name = "same"
    return compiled(model)


class Noise(keras.layers.Layer):
    """A layer with a seed generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(3)

    def call(self, x: Any, training: bool = False) -> Any:
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed_generator) if training else x


def with_seed() -> Any:
    return compiled(keras.Sequential([keras.Input((4,)), Noise(), keras.layers.Dense(1)]))


MODELS = [sequential, nested, shared, lambda: compiled(Subclassed()), twice_the_same_path, with_seed, small]
MODEL_NAMES = ["sequential", "nested", "shared", "subclassed", "duplicate paths", "seed", "functional"]


def inputs_of(model: Any) -> Any:
    return [X, X] if len(getattr(model, "inputs", None) or [0]) == 2 else X


@pytest.mark.parametrize("make", MODELS, ids=MODEL_NAMES)
def test_a_rebuilt_model_gets_the_same_bits_and_the_same_digest(make: Any, store: VersionStore) -> None:
    model = make()
    x = inputs_of(model)
    callback = VersionCheckpoint(store)
    model.fit(x, Y, batch_size=16, epochs=1, verbose=0, callbacks=[callback])
    version = callback.last_version
    assert version is not None
    again = restore_version(version, make(), store=store)  # layers have other names by now
    assert values(again.variables) == values(model.variables)
    assert digest(again) == digest(model) == version.weights.digest
    assert predictions(again, x) == predictions(model, x)


def test_the_training_state_comes_back_too(store: VersionStore) -> None:
    model = trained(small(), store)
    again = restore_version("run/1", small(), store=store, training_state=True)
    assert values(again.optimizer.variables) == values(model.optimizer.variables)
    assert values(again.variables) == values(model.variables)


def test_state_is_told_by_position_and_labelled_by_path(store: VersionStore) -> None:
    trained(small(), store)
    names = list(store.state_dict("run/1"))
    assert names == [f"variables/{position:06d}" for position in range(len(names))]
    assert "seed_generator" in " ".join(store.labels("run/1").values())
    assert any(label.endswith("/kernel") for label in store.labels("run/1").values())
    assert all(isinstance(each, np.ndarray) for each in store.state_dict("run/1").values())


@pytest.mark.parametrize(
    "make",
    [
        lambda: small(units=9),
        sequential,
        lambda: compiled(keras.Sequential([keras.Input((4,)), keras.layers.Dense(5), keras.layers.Dense(2)])),
    ],
    ids=["wider", "other layers", "other end"],
)
def test_another_architecture_is_refused_and_left_as_it_was(make: Any, store: VersionStore) -> None:
    trained(small(), store)
    model = make()
    before = values(model.variables)
    with pytest.raises(IncompatibleModel, match="nothing was assigned"):
        restore_version("run/1", model, store=store)
    assert values(model.variables) == before


def test_a_difference_is_told_by_position_name_and_shape(store: VersionStore) -> None:
    trained(small(units=8), store)
    with pytest.raises(IncompatibleModel, match=r"0 \(dense.*kernel; was dense.*kernel\): shape \[4, 8\]"):
        restore_version("run/1", small(units=9), store=store)


def test_a_failure_midway_leaves_the_model_as_it_was(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mvc_callbacks import keras_state

    trained(small(), store)
    model = small()
    before = values(model.variables)
    write, calls = keras_state._write, []

    def half(variables: Any, tensors: Any) -> None:
        calls.append(len(variables))
        write(variables[:3] if len(calls) == 1 else variables, tensors[:3] if len(calls) == 1 else tensors)

    monkeypatch.setattr(keras_state, "_write", half)
    with pytest.raises(IncompatibleModel, match="did not take"):
        restore_version("run/1", model, store=store)
    assert values(model.variables) == before
    assert len(calls) == 2


def test_bad_input_68_a_weights_only_version_restores_into_an_uncompiled_model(store: VersionStore) -> None:
    model = trained(sequential(), store, save_weights_only=True)
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5), keras.layers.Dense(1)])
    restore_version("run/1", plain, store=store)
    assert predictions(plain, X) == predictions(model, X)
    with pytest.raises(Misconfigured, match="compile"):
        restore_version("run/1", plain, store=store, training_state=True)


def test_an_unbuilt_model_is_built_with_the_recorded_shapes(store: VersionStore) -> None:
    def lazy() -> Any:
        return keras.Sequential([keras.layers.Dense(5), keras.layers.Dense(1)])

    model = trained(compiled(lazy()), store)
    assert predictions(restore_version("run/1", lazy(), store=store), X) == predictions(model, X)
    subclassed = trained(compiled(Subclassed()), store, run="subclassed")
    again = restore_version("subclassed/1", Subclassed(), store=store)
    assert predictions(again, X) == predictions(subclassed, X)


def test_bad_input_68_a_model_that_cannot_be_built_says_what_to_do(store: VersionStore) -> None:
    class Stubborn(Subclassed):
        def build_from_config(self, config: Any) -> None:
            pass

    trained(compiled(Subclassed()), store)
    with pytest.raises(IncompatibleModel, match="call it once on a batch"):
        restore_version("run/1", Stubborn(), store=store)


def test_factories_and_classes_are_called_with_the_given_hyperparameters(store: VersionStore) -> None:
    def build(units: int, rate: float = 0.5) -> Any:
        return small(units)

    model = trained(small(7), store, hyperparameters={"units": 7})
    assert predictions(restore_version("run/1", build, store=store), X) == predictions(model, X)
    model = trained(compiled(Subclassed(3)), store, run="class", hyperparameters={"units": 3})
    assert predictions(restore_version("class/1", Subclassed, store=store), X) == predictions(model, X)
    trained(small(7), store, run="bare")
    with pytest.raises(MissingHyperparameters, match="units"):
        restore_version("bare/1", build, store=store)
    restore_version("bare/1", build, store=store, overrides={"units": 7})


@pytest.mark.parametrize("arguments", [{"strict": False}, {"prefix": "dense."}], ids=str)
def test_what_goes_by_names_is_refused(arguments: dict[str, Any], store: VersionStore) -> None:
    model = trained(small(), store)
    with pytest.raises(Misconfigured, match="by position"):
        restore_version("run/1", model, store=store, **arguments)


def test_another_optimizer_is_refused_by_name(store: VersionStore) -> None:
    trained(small(), store)
    model = small()
    model.compile("sgd", "mse")
    with pytest.raises(IncompatibleModel, match="Adam"):
        restore_version("run/1", model, store=store, training_state=True)
    restore_version("run/1", model, store=store)


# Dtypes


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "mixed_float16", "float64", "float16"])
def test_precision_policies_come_back_bit_for_bit(policy: str, store: VersionStore) -> None:
    if policy == "float64" and BACKEND == "jax":
        pytest.skip("JAX has no float64 unless it is enabled")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = trained(small(), store)
        again = restore_version("run/1", small(), store=store, training_state=True)
    finally:
        keras.config.set_dtype_policy(before)
    assert values(again.variables) == values(model.variables)
    assert values(again.optimizer.variables) == values(model.optimizer.variables)
    assert digest(again) == store.get("run/1").weights.digest
    dtypes = {tensor.dtype for tensor in store.tensors("run/1").values()}
    wanted = {"bfloat16": "BF16", "float64": "F64", "float16": "F16"}.get(policy, "F32")
    assert wanted in dtypes
    if policy == "mixed_float16":
        assert type(model.optimizer).__name__ == "LossScaleOptimizer"
        assert len(model.optimizer.variables) > len(model.optimizer.inner_optimizer.variables)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no float64 unless it is enabled")
def test_another_dtype_is_refused_or_converted_when_allowed(store: VersionStore) -> None:
    trained(sequential(), store)
    keras.config.set_dtype_policy("float64")
    try:
        model = sequential()
    finally:
        keras.config.set_dtype_policy("float32")
    with pytest.raises(IncompatibleModel, match="F32 in the version, F64 in the model"):
        restore_version("run/1", model, store=store)
    restore_version("run/1", model, store=store, cast=True)
    assert [each.dtype.name for each in store.state_dict("run/1").values()] == ["float32"] * 4
    assert keras.backend.standardize_dtype(model.variables[0].dtype) == "float64"


def test_bad_input_35_nan_payloads_infinities_and_signed_zeros_keep_their_bits(store: VersionStore) -> None:
    class Setter(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.layers[0].bias.assign(odd)

    odd = np.array([0x7FC00001, 0xFFC12345, 0x7F800000, 0x80000000, 1], np.uint32).view(np.float32)
    model = sequential()
    model.fit(X, Y, verbose=0, callbacks=[Setter(), VersionCheckpoint(store, run="odd")])
    kept = list(store.state_dict("odd/1").values())[1]
    assert kept.tobytes() == odd.tobytes()
    again = restore_version("odd/1", sequential(), store=store)
    assert keras.ops.convert_to_numpy(again.layers[0].bias).tobytes() == odd.tobytes()
    assert store.get("odd/1").weights.nonfinite


# Frozen, statistics, and what is no variable


def test_variables_are_told_apart_as_trained_frozen_and_buffers() -> None:
    from mvc_callbacks.keras_state import snapshot

    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, trainable=False),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )
    weights = snapshot(model, None, buffers=None).weights
    groups: dict[str, set[str]] = {}
    for name, group in weights.groups.items():
        groups.setdefault(group, set()).add(weights.labels[name].rpartition("/")[2])
    assert groups == {
        "train": {"kernel", "bias", "gamma", "beta"},
        "frozen": {"kernel", "bias"},
        "buffer": {"moving_mean", "moving_variance", "seed_generator_state"},
    }


def test_a_normalization_layer_uses_what_was_restored(store: VersionStore) -> None:
    def make(adapted: bool) -> Any:
        layer = keras.layers.Normalization()
        if adapted:
            layer.adapt(X * 3 + 5)
        return compiled(keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(1)]))

    model = trained(make(True), store)
    again = restore_version("run/1", make(False), store=store)
    assert predictions(again, X) == predictions(model, X)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="text layers are TensorFlow's")
def test_a_vocabulary_is_told_to_be_outside_of_the_versions(store: VersionStore) -> None:
    import tensorflow as tf

    layer = keras.layers.TextVectorization(output_sequence_length=4)
    layer.adapt(["a b", "c d"])
    model = compiled(
        keras.Sequential(
            [
                keras.Input((1,), dtype="string"),
                layer,
                keras.layers.Embedding(8, 2),
                keras.layers.Flatten(),
                keras.layers.Dense(1),
            ]
        )
    )
    with pytest.warns(MVCWarning, match="vocabulary"):
        model.fit(
            tf.constant([["a b"], ["c"]]),
            tf.constant([[1.0], [2.0]]),
            verbose=0,
            callbacks=[VersionCheckpoint(store)],
        )
    assert store.get("latest").details.run_record["not_in_versions"]


class Counted(keras.layers.Layer):
    """Saves a number that is no variable."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 3

    def call(self, x: Any) -> Any:
        return x

    def save_own_variables(self, store: Any) -> None:
        store["number"] = self.number


def test_what_a_layer_saves_by_itself_is_told_to_be_outside_of_the_versions(store: VersionStore) -> None:
    model = compiled(keras.Sequential([keras.Input((4,)), Counted(), keras.layers.Dense(1)]))
    with pytest.warns(MVCWarning, match="what .*counted saves by itself.* is not in the versions"):
        trained(model, store)
    assert store.get("run/1").details.run_record["not_in_versions"]


@pytest.mark.skipif(BACKEND != "torch", reason="modules of torch are layers there only")
def test_buffers_of_a_torch_module_are_told_to_be_outside_of_the_versions(store: VersionStore) -> None:
    import torch

    inside = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    layer = keras.layers.TorchModuleWrapper(inside)
    model = compiled(keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(1)]))
    with pytest.warns(MVCWarning, match="such as buffers of torch"):
        trained(model, store)


def test_a_version_of_torch_is_refused(store: VersionStore) -> None:
    torch = pytest.importorskip("torch")
    store.commit({"weight": torch.zeros(2)}, run="loop")
    with pytest.raises(IncompatibleModel, match="saved with torch"):
        restore_version("loop/1", small(), store=store)
    trained(small(), store)
    with pytest.raises(IncompatibleModel, match="no Keras model"):
        restore_version("run/1", torch.nn.Linear(2, 2), store=store)
