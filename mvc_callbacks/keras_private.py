"""What Keras and TensorFlow do not offer in public: the loop of a fit, and seeds.

A test fails when one of these moves; `missing` then says so in every resumed run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FunctionType
from typing import Any

import keras

__all__ = [
    "Epochs",
    "deterministic",
    "device",
    "global_seed",
    "has_graph",
    "missing",
    "random_operations",
    "set_global_seed",
    "set_tensorflow",
    "tensorflow",
]

_SEED = "global_seed_generator"
_DEEPEST = 6  # functions around functions


def missing(epochs: Any) -> list[str]:
    """Return what this Keras does not have of what is needed.

    Args:
        epochs: The ``epoch_iterator`` of a fit.
    """
    names = ["_enumerate_iterator", "data_adapter", "steps_per_execution", "steps_per_epoch"]
    if keras.backend.backend() == "tensorflow":
        names += ["_distributed_dataset", "_distribute_strategy"]
    return [name for name in names if not hasattr(epochs, name)]


class Epochs:
    """The data of a fit as its loop goes through them.

    Args:
        iterator: The ``epoch_iterator`` of fit.
    """

    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator

    @property
    def adapter(self) -> Any:
        """Keras' own object around the data."""
        return self._iterator.data_adapter

    @property
    def kind(self) -> str:
        """What the data are: the name of Keras' class for them."""
        return type(self.adapter).__name__

    @property
    def shuffles(self) -> bool | str:
        """Whether Keras itself shuffles."""
        for name in ("_shuffle", "shuffle"):
            if name in vars(self.adapter):
                return vars(self.adapter)[name]  # type: ignore[no-any-return]
        return False

    @property
    def goes_on(self) -> bool:
        """Whether an epoch takes up the data where the one before left them."""
        return bool(self._iterator.steps_per_epoch)

    @property
    def batches(self) -> int | None:
        """The number of batches in an epoch; None where nobody knows."""
        number = self.adapter.num_batches
        return int(number) if number is not None else None

    def make_again(self) -> None:
        """Let TensorFlow take the seed of now for the order of arrays: it took that of fit's begin."""
        if keras.backend.backend() != "tensorflow" or self.kind != "ArrayDataAdapter":
            return
        strategy = self._iterator._distribute_strategy
        dataset = self.adapter.get_tf_dataset()
        self._iterator._distributed_dataset = strategy.experimental_distribute_dataset(dataset)

    def build(self, model: Any) -> None:
        """Let a model make the variables of its metrics, as the other backends do before training."""
        model._symbolic_build(iterator=self._iterator)
        self._iterator.reset()

    def skip(self, batches: int, *, before: Callable[[], None], after: Callable[[], None]) -> None:
        """Let the next epoch begin after some batches, which are loaded and thrown away.

        Args:
            batches: How many.
            before: Called before anything of the epoch is made.
            after: Called when the batches are gone.
        """
        iterator = self._iterator

        def rest() -> Iterator[Any]:
            vars(iterator).pop("_enumerate_iterator", None)
            before()
            whole = iterator._enumerate_iterator()
            for _ in range(batches // iterator.steps_per_execution):
                step = next(whole, None)
                if step is None:
                    return
                for _ in range(iterator.steps_per_execution):
                    next(step[2], None)
            after()
            yield from whole

        iterator._enumerate_iterator = rest


# Seeds


def global_seed() -> list[int] | None:
    """Return the state of the generator behind ``keras.random`` without a seed; None before its first use."""
    from keras.src.backend.common import global_state

    generator = global_state.get_global_attribute(_SEED)
    if generator is None:
        return None
    return [int(each) for each in keras.ops.convert_to_numpy(generator.state.value)]


def set_global_seed(state: list[int] | None) -> None:
    """Put it back; this may draw from python's generator."""
    import numpy as np
    from keras.src.backend.common import global_state
    from keras.src.random import seed_generator

    if state is None:
        global_state.set_global_attribute(_SEED, None)
        return
    variable = seed_generator.global_seed_generator().state
    variable.assign(np.array(state, variable.dtype))


def tensorflow() -> dict[str, Any] | None:
    """Return TensorFlow's seed, and the state of what it draws the seeds of operations from."""
    if not hasattr(sys.modules.get("tensorflow"), "random"):
        return None
    from tensorflow.python.eager import context

    generator = getattr(context.context(), "_rng", None)
    return {
        "seed": context.global_seed(),
        "operations": generator.getstate() if generator is not None else None,
    }


def set_tensorflow(state: dict[str, Any] | None) -> None:
    """Put them back; without a seed there is nothing that could be."""
    if state is None or state["seed"] is None or not hasattr(sys.modules.get("tensorflow"), "random"):
        return
    import tensorflow as tf
    from tensorflow.python.eager import context

    tf.random.set_seed(state["seed"])
    generator, kept = getattr(context.context(), "_rng", None), state["operations"]
    if generator is not None and kept is not None:
        generator.setstate((kept[0], tuple(kept[1]), kept[2]))


# TensorFlow's operations that draw random numbers and keep their place to themselves.
_STATEFUL = (
    "Multinomial",
    "Poisson",
    "PyFunc",  # Python code of the user's
    "Random",
    "RngReadAndSkip",
    "StatefulStandard",
    "StatefulUniform",
    "TruncatedNormal",
)


_CHANGING = ("Assign", "Shuffle")  # what makes a pipeline's second time another one


def random_operations(function: Any, *, pipeline: bool = False) -> set[str]:
    """Return which operations of a graph draw random numbers by a state of their own, which nobody can reach.

    Args:
        function: A ``tf.function``, or one that a tf.data pipeline holds; anything else has none.
        pipeline: Whether it is one of a pipeline, in which variables are nobody's either.
    """
    kinds = (*_STATEFUL, *_CHANGING) if pipeline else _STATEFUL
    found: set[str] = set()
    with suppress(AttributeError, TypeError):  # another TensorFlow, or no function of it
        for concrete in _concrete(function):
            graph = concrete.graph.as_graph_def()
            nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
            found |= {node.op for node in nodes if _is_one_of(kinds, node.op)}
    return found


def _is_one_of(kinds: tuple[str, ...], operation: str) -> bool:
    return any(each in operation for each in kinds) and not operation.startswith("Stateless")


def _concrete(function: Any, depth: int = 0) -> list[Any]:
    """Go through the graphs of a function, and of those that it calls: Keras wraps its own several times."""
    if hasattr(function, "_list_all_concrete_functions"):
        return list(function._list_all_concrete_functions())
    if isinstance(function, FunctionType):
        cells = function.__closure__ or () if depth < _DEEPEST else ()
        return [each for cell in cells for each in _concrete(_content(cell), depth + 1)]
    inner = getattr(function, "function", function)
    return [inner] if hasattr(inner, "graph") else []


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def has_graph(function: Any) -> bool:
    """Tell whether a function is known from inside; of what is not, nothing can be promised."""
    return bool(_concrete(function))


# Devices


def device() -> str:
    """Return the kind of device that the backend computes on."""
    backend = keras.backend.backend()
    if backend == "torch":
        from keras.src.backend.torch.core import get_device

        return str(get_device()).partition(":")[0]
    if backend == "jax":
        return str(sys.modules["jax"].default_backend())
    if backend == "tensorflow":
        return "gpu" if sys.modules["tensorflow"].config.get_visible_devices("GPU") else "cpu"
    return "cpu"


def deterministic() -> bool:
    """Tell whether the backend was told to compute the same each time."""
    backend = keras.backend.backend()
    if backend == "torch":
        return bool(sys.modules["torch"].are_deterministic_algorithms_enabled())
    if backend == "tensorflow":
        from tensorflow.python.framework import config

        return bool(config.is_op_determinism_enabled())
    return "xla_gpu_deterministic_ops=true" in os.environ.get("XLA_FLAGS", "")
