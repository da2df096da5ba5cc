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
        "The fit itself ends early enough; then TensorFlow destroys its data iterator and waits for the "
        "thread that tunes it, which sleeps through its cancellation and wakes up only at its next turn, "
        "seconds later. It is woken before the cancellation can be seen "
        "(`Model::OptimizeLoop`, found with a debugger), and goes back to sleep where a processor is idle at "
        "that moment: also after a callback that only sleeps for 0.4 s at the end of training, without this "
        "package. A `tf.data.Dataset` whose option `autotune.enabled` is off has no such thread."
    ),
    "Fingerprints of data: 20 000 files of 4 KB, first time": (
        "Five system calls for each file and SHA-256 take 0.27 s, the start of Python and two looks at all "
        "files, before and after, 0.3 s; the rest is Python's work for 20 000 names, listing and cache. "
        "Tried: several threads (0.4 s more: they wait for the interpreter's lock; now only for files that "
        "are not in memory), one read instead of two, no look into an empty cache, fewer objects for each "
        "file. From 1.3 s to this. A fifth of DVC's time would need code that is not Python; in a fit it "
        "runs beside training."
    ),
    "Commits: – with a removal, 1000 runs of 100": (
        "Before something is removed, the times of every run's folder are compared with those of the "
        "last look, for nothing that a version needs may go: about 10 ms for a thousand runs. Tried: one "
        "statement instead of two for each run, and raw times instead of stamps."
    ),
}
"""Markdown by table and figure as the page shows them, as ``Commits: commit, 1000 runs of 100``."""
