"""Two processes that fit together; run by a test."""

from __future__ import annotations

import sys
from typing import Any

from lightning.pytorch.callbacks import Callback
from small_models import Small, trainer_of

from mvc_callbacks.lightning import VersionCheckpoint


class FailOnce(Callback):
    """Make the second save fail, on the only rank that saves."""

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        from mvc_callbacks.commit import Run

        commit = Run.commit

        def failing(self: Run, snapshot: Any, *, number: int, **kwargs: Any) -> Any:
            if number == 2:
                raise OSError(28, "no space left on device")
            return commit(self, snapshot, number=number, **kwargs)

        if trainer.current_epoch == 0 and trainer.is_global_zero:
            Run.commit = failing  # type: ignore[method-assign]


def main(store: str, on_error: Any) -> None:
    callback = VersionCheckpoint(
        store,
        run="both",
        monitor="loss",
        save_top_k=1,
        save_last=True,
        every_n_train_steps=1,
        on_error=on_error,
    )
    trainer = trainer_of(
        FailOnce(), callback, devices=2, strategy="ddp", max_epochs=2, use_distributed_sampler=True
    )
    trainer.fit(Small())
    known = (
        callback.run_name,
        callback.best_model_path,
        sorted(callback.best_k_models),
        callback.last_model_path,
    )
    sys.stdout.write(f"RANK {trainer.global_rank} {known}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
