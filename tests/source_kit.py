"""What tests of sources share."""

from __future__ import annotations

from typing import Any

from mvc_callbacks import fingerprint_data


def digest(source: Any) -> str:
    """Return the digest of data that have one."""
    told = fingerprint_data(source)
    assert told.digest is not None, told
    return str(told.digest)
