"""What the report's script is told of the versions: JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mvc_callbacks.render import clean, moment, number, short
from mvc_callbacks.render_report_table import named
from mvc_callbacks.render_tables import Log, marks, notes_of
from mvc_callbacks.report import Report
from mvc_callbacks.versions import Fingerprint, Version

__all__ = ["report_data"]

_LONGEST = 400


def report_data(report: Report, log: Log, metrics: Sequence[str], runs: Mapping[str, int]) -> dict[str, Any]:
    """Tell everything that the script sorts, filters and compares by.

    Args:
        report: What is shown.
        log: The same, as tables take it.
        metrics: Metrics with a column.
        runs: Label to the place of the run.
    """
    compared = report.comparisons
    fingerprints: dict[Fingerprint, int] = {}
    return {
        "versions": [
            _told(each, log, compared.versions.get(each.id, {}), fingerprints) for each in report.versions
        ],
        "metrics": [clean(name) for name in metrics],
        "runs": [clean(run, 64) for run in runs],
        "fingerprints": [
            {
                "digest": each.digest,
                "scheme": each.scheme,
                "coverage": clean(each.coverage, 20),
                "files": each.files,
                "bytes": each.bytes,
                "how": clean(each.how, _LONGEST),
                "problems": [clean(line, _LONGEST) for line in each.problems[:8]],
            }
            for each in fingerprints
        ],
        **compared.to_dict(),
    }


def _told(
    version: Version, log: Log, more: Mapping[str, Any], fingerprints: dict[Fingerprint, int]
) -> dict[str, Any]:
    files = more.get("files", {})
    return {
        "id": version.id,
        "name": named(version),
        "run": clean(version.run, 64),
        "number": version.number,
        "framework": clean(version.framework, 40),
        "epoch": version.epoch,
        "step": version.step,
        "created": moment(version.created),
        "metrics": {clean(name): value for name, value in version.metrics.items()},
        "monitor": [clean(version.monitor.name, _LONGEST), version.monitor.mode] if version.monitor else None,
        "best": [clean(each) for each in sorted(log.best.get(version.id, ()))],
        "aliases": [clean(each, 64) for each in log.aliases.get(version.id, ())],
        "marks": list(marks(version)),
        "words": [each.text for each in notes_of(version, log)],
        "notes": [[clean(each.text, 2000), moment(each.time), clean(each.who, 64)] for each in version.notes],
        "parents": [
            [named(log.parents[each.id]) if each.id in log.parents else short(each.id), clean(each.how, 40)]
            for each in version.parents
        ],
        "evaluations": [
            [
                clean(each.kind, 20),
                moment(each.time),
                ", ".join(f"{clean(name, 80)} {number(value)}" for name, value in each.metrics.items()),
            ]
            for each in version.evaluations
        ],
        "pruned": [[each.what, moment(each.time), clean(each.policy, 120)] for each in version.pruned],
        "bytes": version.weights.bytes,
        "stored": version.weights.stored_bytes,
        "tensors": version.weights.tensors,
        "digest": version.weights.digest,
        "data": {
            clean(name, 80): [fingerprints.setdefault(each, len(fingerprints)), files.get(name)]
            for name, each in version.data.items()
        },
        **{key: more.get(key) for key in ("hyperparameters", "code", "environment", "weights", "why")},
        "trouble": clean(more["trouble"], _LONGEST) if "trouble" in more else None,
    }
