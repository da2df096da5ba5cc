"""What a person types to name a version, and which names are accepted at all."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from mvc_callbacks.errors import BadName

__all__ = ["Ref", "check_digest", "check_name", "parse_ref"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEX = re.compile(r"[0-9a-f]+", re.IGNORECASE)
_DIGEST = re.compile(r"[0-9a-f]{64}")
# Device names of Windows: a store that holds them cannot be copied there.
_DEVICES = {"con", "prn", "aux", "nul", *(f"com{n}" for n in range(10)), *(f"lpt{n}" for n in range(10))}
_RESERVED = {"latest", "best", "last", "head", "none", "all"}
SHORTEST_PREFIX = 4


class Ref(NamedTuple):
    """A parsed ref.

    Attributes:
        kind: ``latest``, ``best``, ``id`` (or a prefix of one), or ``name`` (an alias or a run's label).
        name: The prefix, alias or label; the run of ``<run>/…``; None for the whole store.
        number: The version's number in ``<run>/<number>``.
        metric: The metric of ``best:<metric>``.
        mode: The mode of ``best:<metric>:<mode>``.
        up: Number of first parents to go up.
    """

    kind: Literal["latest", "best", "id", "name"]
    name: str | None = None
    number: int | None = None
    metric: str | None = None
    mode: Literal["min", "max"] | None = None
    up: int = 0


def check_name(name: str, what: str) -> str:
    """Accept a label or alias, or say why not.

    Args:
        name: The name.
        what: ``run`` or ``alias``, for the message.

    Returns:
        The name as it was.

    Raises:
        BadName: If a store, a file system or a ref could take it for something else.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadName(
            f"{name!r:.100} cannot be the name of {_article(what)}: use 1 to 64 letters, digits, '.', '_' "
            "and '-', beginning with a letter or a digit"
        )
    if name.lower() in _RESERVED:
        raise BadName(f"{name!r} cannot be the name of {_article(what)}: refs use this word; choose another")
    if name.split(".")[0].lower() in _DEVICES or name.endswith("."):
        raise BadName(
            f"{name!r} cannot be the name of {_article(what)}: Windows cannot have such a file; "
            "choose another"
        )
    if _HEX.fullmatch(name):
        raise BadName(
            f"{name!r} cannot be the name of {_article(what)}: it looks like a version's id; "
            "add another letter"
        )
    return name


def _article(what: str) -> str:
    return f"an {what}" if what[0] in "aeiou" else f"a {what}"


def check_digest(digest: str, what: str) -> str:
    """Accept 64 lower-case hex digits, or raise `BadName`."""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise BadName(
            f"{digest!r:.80} is no digest of {_article(what)}: 64 lower-case hex digits are expected"
        )
    return digest


def parse_ref(text: str) -> Ref:
    """Read a ref.

    Args:
        text: ``<id>``, ``latest``, ``best``, ``best:<metric>[:min|max]``, ``<run>``, ``<run>/<number>``,
            ``<run>/best``, ``<run>/latest``, an alias; each may end in ``~N``.

    Returns:
        What it means; whether it exists is not looked up.

    Raises:
        BadName: If it has no such form.
    """
    if not isinstance(text, str):
        instead = ": give its id" if isinstance(getattr(text, "id", None), str) else ""
        raise BadName(f"a ref is text, not {type(text).__name__}{instead}")
    base, up = _split_parents(text)
    found = _best(base, text)  # first: metrics are often called 'val/loss'
    if found is not None:
        return Ref("best", metric=found[0], mode=found[1], up=up)
    run, slash, rest = base.partition("/")
    if slash:
        check = run if _NAME.fullmatch(run) else check_name(run, "run")
        if rest.isascii() and rest.isdigit() and len(rest) < 10:
            return Ref("name", check, number=int(rest), up=up)
        if rest == "latest":
            return Ref("name", check, up=up)
        found = _best(rest, text)
        if found is not None:
            return Ref("best", check, metric=found[0], mode=found[1], up=up)
        raise BadName(f"{text!r:.100} is no ref: after 'run/' comes a number, 'latest' or 'best'")
    if base == "latest":
        return Ref("latest", up=up)
    if _HEX.fullmatch(base):
        if not SHORTEST_PREFIX <= len(base) <= 64:
            raise BadName(f"{text!r:.100} is no ref: an id is given by {SHORTEST_PREFIX} to 64 hex digits")
        return Ref("id", base.lower(), up=up)
    if not _NAME.fullmatch(base):
        raise BadName(
            f"{text!r:.100} is no ref: give an id, 'latest', 'best', 'best:METRIC:max', a run, 'run/3', "
            "'run/best' or an alias, each with '~N' for its parents"
        )
    return Ref("name", base, up=up)


def _split_parents(text: str) -> tuple[str, int]:
    up = 0
    while (at := text.rfind("~")) >= 0:
        count = text[at + 1 :]
        if count and not (count.isascii() and count.isdigit() and len(count) < 10):
            raise BadName(f"{text!r:.100} is no ref: after '~' comes a number of parents")
        up += int(count) if count else 1
        text = text[:at]
    return text, up


def _best(text: str, whole: str) -> tuple[str | None, Literal["min", "max"] | None] | None:
    if text == "best":
        return None, None
    if not text.startswith("best:"):
        return None
    metric, mode = text[len("best:") :], None
    for each in ("min", "max"):
        if metric.endswith(f":{each}"):
            metric, mode = metric[: -len(each) - 1], each
    if not metric:
        raise BadName(f"{whole!r:.100} is no ref: 'best:' is followed by a metric")
    return metric, mode  # type: ignore[return-value]
