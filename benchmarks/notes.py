"""Notes: what is to be said of bars that are missed: where the limit is, and what was tried.

They are written after a measurement was looked at, so they are no part of its results.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["NOTES"]

NOTES: Mapping[str, str] = {
    "Hash and durable write: ResNet-50 (320 tensors, 102 MB)": (
        "SHA-256 of 102 MB takes 0.06 s of a core, writing and syncing alone 0.07 s; the rest are 34 "
        "syncs and 20 ms for manifest, record and history, which torch.save does not write. Tried: one "
        "object for each tensor from 1, 2 and 4 MiB on (2 is best), 1 to 8 writing threads, asking for a "
        "file's blocks together, packs before large tensors. From 0.19 s to 0.12 s."
    ),
    "Hash and durable write: 1 024 tensors of 0.5 MB (1024 tensors, 512 MB)": (
        "Tensors below 2 MiB are hashed twice: once for their own digest and once for the name of their "
        "pack, 0.3 s of a core each. Naming a pack by its header would save the second pass, but then "
        "`sha256sum` alone could not check an object. Tried: one object for each tensor (1 024 files; "
        "slower), packs of 32 and 128 MiB, writing one pack while the next is hashed, looking for NaN "
        "without torch's threads, which spun. From 0.78 s to 0.52 s."
    ),
    "Before the first step: a store that holds this model": (
        "Where a store has versions, it is found out whether training begins from one: the weights are "
        "copied before they change, into memory that the first save uses again, and hashed beside "
        "training. Into fresh memory that copy takes 0.15 s for 512 MB. Not done: hashing them where "
        "they are, as the first optimizer step changes them."
    ),
    "Keras: the whole fit": (
        "In some fits TensorFlow waits for about 2.3 s when it lets go of its data iterator, after all "
        "callbacks have ended and while no thread computes: 2.7 of the seconds here. Fits without that "
        "wait took 7.7 to 8.3 s on the same machine, 0.6 of ModelCheckpoint's. Fits without any callback "
        "waited for up to 0.4 s; why it is longer here was not found. Reading variables where they lie "
        "saved 0.15 to 1 s of each version."
    ),
    "Commits: – with a removal, 1000 runs of 100": (
        "Before something is removed, the times of every run's folder are compared with those of the "
        "last look, for nothing that a version needs may go: about 10 ms for a thousand runs. Tried: one "
        "statement instead of two for each run, and raw times instead of stamps."
    ),
}
"""Markdown by table and figure as the page shows them, as ``Commits: commit, 1000 runs of 100``."""
