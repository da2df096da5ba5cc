"""Ctrl-C and SIGTERM in real fits: a version of the last finished step, and then the end."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras_models import BACKEND, data, small

from mvc_callbacks import VersionStore
from mvc_callbacks.keras import VersionCheckpoint

HERE = Path(__file__).parent
X, Y = data()  # six batches of eight
DEFAULTS = (signal.default_int_handler, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def signals_are_as_python_sets_them() -> Iterator[None]:
    gc.collect()  # a fit of another file that raised may still have its handlers
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    found = handlers()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert found == DEFAULTS


def handlers() -> tuple[Any, Any]:
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


# Where nobody looks: what changes in a callback would be told.
_calls: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


class At(keras.callbacks.Callback):
    """Does something in a hook, at its n-th call."""

    def __init__(self, hook: str, number: int, do: Callable[[], Any]) -> None:
        super().__init__()
        _calls[self] = 0
        setattr(self, hook, lambda *_, **__: self.call(number, do))

    def call(self, number: int, do: Callable[[], Any]) -> None:
        _calls[self] += 1
        if _calls[self] == number:
            do()


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def fit(*callbacks: Any, model: Any = None, **options: Any) -> Any:
    options = {"batch_size": 8, "epochs": 3, "verbose": 0, **options}
    return (model or small()).fit(X, Y, callbacks=list(callbacks), **options)


def interrupted(*callbacks: Any, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(*callbacks, **options)
    _ = [each.last_version for each in callbacks if isinstance(each, VersionCheckpoint)]  # wait for it


def place(store: VersionStore, run: str = "job") -> list[tuple[int | None, int | None, int | None]]:
    """Return epoch, batch and step of a run's versions."""
    return [
        (each.epoch, each.details.record["keras"].get("batch"), each.step) for each in store.versions(run)
    ]


def test_ctrl_c_saves_the_step_that_it_came_in(store: VersionStore) -> None:
    callback = VersionCheckpoint(store, run="job")
    interrupted(At("on_train_batch_begin", 9, press), callback)
    assert place(store) == [(0, None, 6), (1, 2, 9)]
    last = callback.last_version
    assert last is not None and last.metrics.keys() == {"loss", "mae"}
    never = At("on_train_batch_begin", 0, press)
    fit(never, VersionCheckpoint(store, run="job", resume="last"))
    assert place(store, "job-2") == [(1, None, 12), (2, None, 18)]
    assert store.versions("job-2")[-1].details.run_record["resume"] == {"guarantee": "exact", "reasons": []}


def test_a_second_ctrl_c_acts_at_once(store: VersionStore) -> None:
    callback = VersionCheckpoint(store, run="job")

    def twice() -> None:
        press()
        press()

    interrupted(At("on_train_batch_begin", 9, twice), callback)
    assert place(store) == [(0, None, 6)]
    press_and_see()


def press_and_see() -> None:
    with pytest.raises(KeyboardInterrupt):
        press()


def test_before_the_first_step_there_is_nothing_to_wait_for(store: VersionStore) -> None:
    interrupted(At("on_train_batch_begin", 1, press), VersionCheckpoint(store, run="job"))
    assert not store.exists() or store.versions() == []
    press_and_see()


def test_in_a_validation_the_last_step_is_saved(store: VersionStore) -> None:
    press_in_validation = At("on_test_batch_begin", 3, press)
    interrupted(press_in_validation, VersionCheckpoint(store, run="job"), validation_data=(X, Y))
    assert place(store) == [(0, 5, 6)]
    assert store.get("job/1").metrics.keys() == {"loss", "mae"}
    with pytest.warns(match="approximate: it was saved in the middle of a validation$"):
        never = At("on_test_batch_begin", 0, press)
        fit(never, VersionCheckpoint(store, run="job", resume="last"), validation_data=(X, Y))
    assert place(store, "job-2")[0] == (0, None, 6)
    assert store.get("job-2/1").metrics.keys() == {"loss", "mae", "val_loss", "val_mae"}
    assert store.get("job-2/1").metrics["loss"] == store.get("job/1").metrics["loss"]


def test_averages_that_a_validation_has_put_into_the_model_are_taken_out_first(store: VersionStore) -> None:
    model = small(optimizer=keras.optimizers.Adam(0.01, use_ema=True))
    interrupted(
        At("on_test_batch_begin", 3, press),
        keras.callbacks.SwapEMAWeights(),
        VersionCheckpoint(store, run="job"),
        model=model,
        validation_data=(X, Y),
    )
    assert place(store) == [(0, None, 6)]
    assert store.get("job/1").details.record["weights"]["of"] == "training"


def test_at_an_epochs_end_what_the_policy_saves_is_enough(store: VersionStore) -> None:
    interrupted(At("on_epoch_end", 2, press), VersionCheckpoint(store, run="job"))
    assert place(store) == [(0, None, 6), (1, None, 12)]


def test_what_the_policy_would_not_save_is_saved_and_is_not_the_best(store: VersionStore) -> None:
    callback = VersionCheckpoint(store, run="job", save_best_only=True)
    interrupted(At("on_train_batch_begin", 10, press), callback, validation_data=(X, Y))
    assert place(store) == [(0, None, 6), (1, 3, 10)]
    assert store.get("job/best").number == 1
    assert callback.best_version is not None and callback.best_version.number == 1


def test_several_of_us_save_each(store: VersionStore) -> None:
    callbacks = [
        VersionCheckpoint(store, run=name, save_weights_only=name == "one") for name in ("one", "two")
    ]
    interrupted(At("on_train_batch_begin", 2, press), *callbacks)
    assert place(store, "one") == place(store, "two") == [(0, 1, 2)]


def test_a_save_that_fails_ends_fit_all_the_same(store: VersionStore) -> None:
    callback = VersionCheckpoint(store, run="job")

    def fail() -> None:
        assert callback._session is not None
        callback._session.resuming.keep = lambda batch: 1 / 0  # type: ignore[assignment, return-value]
        press()

    with pytest.warns(match=r"job/2 WAS NOT SAVED .*ZeroDivisionError"):
        interrupted(At("on_train_batch_begin", 9, fail), callback)
    assert place(store) == [(0, None, 6)]


def test_a_fit_that_raised_holds_nothing_back(store: VersionStore) -> None:
    callback = VersionCheckpoint(store, run="job")
    with pytest.raises(ZeroDivisionError):
        fit(At("on_train_batch_begin", 9, lambda: 1 / 0), callback)
    press_and_see()
    assert handlers() == DEFAULTS


def test_nor_does_it_keep_the_next_one_from_it(store: VersionStore) -> None:
    with pytest.raises(ZeroDivisionError):
        fit(At("on_train_batch_begin", 9, lambda: 1 / 0), VersionCheckpoint(store, run="raised"))
    interrupted(At("on_train_batch_begin", 3, press), VersionCheckpoint(store, run="job"))
    assert place(store) == [(0, 2, 3)]


def test_nor_a_later_fit_of_the_same_model_without_us(store: VersionStore) -> None:
    callback, model = VersionCheckpoint(store, run="job"), small()
    with pytest.raises(ZeroDivisionError):
        fit(At("on_train_batch_begin", 9, lambda: 1 / 0), callback, model=model)
    with pytest.raises(KeyboardInterrupt):
        fit(At("on_train_batch_begin", 3, press), model=model)
    assert handlers() == DEFAULTS


def test_handlers_go_with_the_callback_of_a_fit_that_raised(store: VersionStore) -> None:
    with pytest.raises(ZeroDivisionError):
        fit(At("on_train_batch_begin", 9, lambda: 1 / 0), VersionCheckpoint(store, run="job"))
    gc.collect()
    assert handlers() == DEFAULTS


def test_a_fit_within_fit_is_not_waited_for(store: VersionStore) -> None:
    inner = small()

    def probe() -> None:
        fit(At("on_train_batch_begin", 2, press), model=inner)

    interrupted(At("on_epoch_end", 1, probe), VersionCheckpoint(store, run="job"))
    assert not store.exists() or place(store) == []


def test_a_handler_of_ones_own_is_left_alone(store: VersionStore) -> None:
    got: list[int] = []

    def own(number: int, frame: Any) -> None:
        got.append(number)

    before = signal.signal(signal.SIGTERM, own)
    try:
        kill = At("on_train_batch_begin", 9, lambda: os.kill(os.getpid(), signal.SIGTERM))
        fit(kill, VersionCheckpoint(store, run="job"))
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [signal.SIGTERM]
    assert place(store) == [(0, None, 6), (1, None, 12), (2, None, 18)]


def test_in_another_thread_there_are_no_signals(store: VersionStore) -> None:
    seen: list[Any] = []
    look = At("on_train_batch_begin", 2, lambda: seen.append(handlers()))
    thread = threading.Thread(target=lambda: fit(look, VersionCheckpoint(store, run="job"), epochs=1))
    thread.start()
    thread.join()
    assert seen == [DEFAULTS]
    assert place(store) == [(0, None, 6)]


SCRIPT = """
import os, signal, sys
import keras
sys.path.insert(0, sys.argv[1])
from keras_models import data, small
from mvc_callbacks import VersionStore
from mvc_callbacks.keras import VersionCheckpoint

class Told(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        self.batches = getattr(self, "batches", 0) + 1
        if self.batches == int(sys.argv[3]):
            print("ready", flush=True)
            sys.stdin.readline()  # the signal comes while this step goes on

x, y = data()
callbacks = [Told(), VersionCheckpoint(sys.argv[2], run="job")]
small().fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=callbacks)
print("not interrupted")
"""


@pytest.mark.parametrize(
    ("number", "batch", "saved"),
    [
        (signal.SIGTERM, 9, [(0, None, 6), (1, 2, 9)]),
        (signal.SIGINT, 9, [(0, None, 6), (1, 2, 9)]),
        (signal.SIGTERM, 1, []),
    ],
)
def test_bad_input_47_a_process_ends_by_the_signal_when_all_is_on_disk(
    number: signal.Signals, batch: int, saved: list[Any], tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": str(HERE.parent.parent)}
    process = subprocess.Popen(
        [sys.executable, str(script), str(HERE), str(tmp_path / "versions"), str(batch)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if line != "ready\n":
        pytest.fail(line + process.communicate()[1])
    process.send_signal(number)
    out, err = process.communicate("\n", timeout=120)
    assert out == "", out + err
    # Python ends by the signal itself after an uncaught KeyboardInterrupt, but for what TensorFlow runs then.
    assert process.returncode == -number or (process.returncode == 1 and number == signal.SIGINT), err
    assert number == signal.SIGTERM or err.rstrip().endswith("KeyboardInterrupt")
    store = VersionStore(tmp_path / "versions")
    assert (place(store) if store.exists() else []) == saved


@pytest.mark.parametrize(
    ("batch", "then", "code"),
    [
        (
            "os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGINT)",
            "train()",
            128 + signal.SIGTERM,
        ),
        (
            "os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGTERM)",
            "train()",
            -signal.SIGTERM,
        ),
        ("os.kill(os.getpid(), signal.SIGTERM); 1 / 0", "train()", -signal.SIGTERM),
        (
            "os.kill(os.getpid(), signal.SIGTERM); 1 / 0",
            "os.kill(os.getpid(), signal.SIGINT)",
            128 + signal.SIGTERM,
        ),
    ],
    ids=["Ctrl-C", "Ctrl-C before it", "an error and the next fit", "an error and Ctrl-C"],
)
def test_sigterm_is_forgotten_over_nothing_that_comes_in_the_same_step(
    batch: str, then: str, code: int, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    again = f"""
def train():
    callbacks = [Told(), ours]
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=callbacks)

ours, model = VersionCheckpoint(sys.argv[2], run="job"), small()
try:
    train()
except (KeyboardInterrupt, ZeroDivisionError):
    sys.argv[3] = "0"
try:
    {then}
except KeyboardInterrupt:
    pass
print("goes on")
"""
    script.write_text(SCRIPT.partition("callbacks = [")[0].replace("sys.stdin.readline()", batch) + again)
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": str(HERE.parent.parent)}
    arguments = [sys.executable, str(script), str(HERE), str(tmp_path / "versions"), "9"]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stdout) == (code, "ready\n"), done.stderr
    assert place(VersionStore(tmp_path / "versions"))[:1] == [(0, None, 6)]


def test_bad_input_47_the_first_process_of_a_container_ends_too(tmp_path: Path) -> None:
    """The kernel keeps from it each signal that it has no handler for, also those that it sends itself."""
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no process may be the first one of its own here")
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.replace("sys.stdin.readline()", "os.kill(os.getpid(), signal.SIGTERM)"))
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": str(HERE.parent.parent)}
    arguments = [sys.executable, str(script), str(HERE), str(tmp_path / "versions"), "9"]
    done = subprocess.run(
        [*unshare, *arguments], capture_output=True, text=True, env=environment, timeout=120
    )
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "ready\n"), done.stderr
    assert place(VersionStore(tmp_path / "versions")) == [(0, None, 6), (1, 2, 9)]


def test_metrics_of_an_epoch_that_ended_before_it_was_resumed_are_complete(store: VersionStore) -> None:
    keras.utils.set_random_seed(3)
    straight = VersionCheckpoint(store, run="straight", save_freq=6)
    history = fit(straight, validation_data=(X, Y)).history
    resumed = fit(
        VersionCheckpoint(store, run="resumed", resume="straight/2"), validation_data=(X, Y)
    ).history
    assert resumed.keys() == history.keys()
    assert np.array_equal(resumed["loss"], history["loss"][1:])
