"""Secrets: which names tell of one, and texts without them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

__all__ = ["MASK", "looks_secret", "masked", "without_credentials", "without_secrets", "words"]

MASK = "***"
"""What stands in a text for a secret."""


def words(text: str) -> frozenset[str]:
    """Return the words of a text: a set that can be read on one line."""
    return frozenset(text.split())


# A name with one of these words tells of a secret wherever the word stands.
_SECRET = words(
    "auth authorization bearer cookie credential credentials creds passcode passphrase passwd password "
    "passwords pwd secret secrets"
)
# Names written in one word: "hftoken", "dbpassword". Only the end is looked at: "passwordless" is no
# password.
_SECRET_END = re.compile(
    r"(password|passwd|passphrase|credentials?"
    r"|(api|access|private|secret|signing|encryption|account)keys?"
    r"|(api|auth|access|refresh|session|bearer|hf|github|gitlab|wandb)tokens?)$"
)
# What makes "key" and "token" secret: "api_key", "hf_token". A plain "key" is a dictionary's, a plain "token"
# is secret.
_OF_KEY = words(
    "access account api auth aws azure anthropic client comet deploy encryption gcp github gitlab hf "
    "huggingface license master neptune openai private s3 secret service session signing ssh storage "
    "subscription wandb"
)
_OF_TOKENS = _OF_KEY | {"bearer", "id", "refresh", "write", "read"}
# "pad_token" and its like are text of a vocabulary.
_OF_VOCABULARY = words(
    "additional audio begin blank bos bot cls decoder end eos eot first image last mask max min next null "
    "num pad prefix sep special start stop suffix text unk video vocab word"
)
_OF_PASS = words("admin db ftp login mongo mysql postgres proxy redis root smtp sql user")
# "password_length", "token_file": says something about a secret, and is none.
_ABOUT = words(
    "at count dim dir directory enabled expires expiry file filename folder length len max method min mode "
    "name num path policy required scheme size ttl type url uri"
)
# Whatever lies under such a name is secret, also in lists and dictionaries.
_HOLDS_SECRETS = words("credential credentials creds passwords secret secrets password")

_LONGEST = 256  # letters of a name that are looked at, its last ones
_REMEMBERED = 4096  # names
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_URL = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{1,31}://)([^\s/?#'\"]{1,2048})@")
_QUERY = re.compile(r"([?&;])([A-Za-z0-9_.~-]{1,64})=([^&;#\s'\"]+)")
_SIGNATURES = frozenset({"sig", "signature", "x-amz-signature", "x-goog-signature"})
_BEARER = re.compile(r"\b((?:bearer|basic|token)\s+)[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE)
_ASSIGNED = re.compile(r"^([-+~]*)([A-Za-z_][\w.@/-]*)=(.+)$", re.DOTALL)


def looks_secret(name: str) -> bool:
    """Tell whether a name says that its value is a secret.

    Args:
        name: Of a hyperparameter, option or environment variable: ``api_key``, ``--hf-token``,
            ``dbPassword``.

    Returns:
        True for names like these; False for ``tokenizer``, ``pad_token``, ``max_tokens``, ``author``,
        ``key_dim``.
    """
    return _is_secrets(name[-_LONGEST:])


@functools.lru_cache(_REMEMBERED)  # each save asks for the same thousand names again, on the training thread
def _is_secrets(name: str) -> bool:
    parts = [word.lower() for word in _WORDS.findall(name)]
    while parts and parts[-1].isdigit():  # "token2"
        parts.pop()
    if not parts or parts[-1] in _ABOUT:
        return False
    if any(word in _SECRET or _SECRET_END.search(word) for word in parts):
        return True
    before = parts[-2] if len(parts) > 1 else ""
    if parts[-1] == "token":
        return before not in _OF_VOCABULARY
    if parts[-1] == "tokens":
        return before in _OF_TOKENS
    if parts[-1] == "pass":
        return before in _OF_PASS
    return any(first in _OF_KEY and second in ("key", "keys") for first, second in pairwise(parts))


def masked(path: Any, key: Any, value: Any) -> bool:
    """Tell whether a named value of a tree is a secret that must not be written.

    Only texts are, alone or in a list: a number under a telling name is a setting, and a text under any name
    may be a URL with credentials.

    Args:
        path: Where the value lies: its keys, or these joined by dots.
        key: Its own key.
        value: The value.
    """
    return any(_is_secret(path, key, each) for each in _listed(value))


def _listed(value: Any) -> Iterator[Any]:
    """Yield a value, or what its lists hold; each list once, as one may hold itself."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if not isinstance(each, (list, tuple, set, frozenset)):
            yield each
        elif id(each) not in seen:
            seen.add(id(each))
            waiting.extend(each)


def _is_secret(path: Any, key: Any, value: Any) -> bool:
    if not isinstance(value, (str, bytes, bytearray)) or not value:
        return False
    if isinstance(key, str) and looks_secret(key):
        return True
    above = (
        path.split(".") if isinstance(path, str) else [each for each in path or () if isinstance(each, str)]
    )
    if any(_holds_secrets(each[-_LONGEST:]) for each in above):
        return True
    return isinstance(value, str) and "://" in value and without_credentials(value) != value


@functools.lru_cache(_REMEMBERED)
def _holds_secrets(name: str) -> bool:
    parts = [word.lower() for word in _WORDS.findall(name)]
    if not parts or parts[-1] in _ABOUT:
        return False
    return parts[-1] in _HOLDS_SECRETS or (parts[-1] in ("keys", "tokens") and looks_secret(name))


def without_credentials(text: str) -> str:
    """Mask what opens doors in the URLs of a text: passwords, tokens before ``@``, signed queries."""
    if "://" not in text:
        return text
    return _QUERY.sub(_mask_query, _URL.sub(_mask_user, text))


def _mask_user(match: re.Match[str]) -> str:
    scheme, user = match.groups()
    # A user alone is no secret ("ssh://git@host"), but over HTTP it is often a token.
    if ":" not in user and not scheme.lower().endswith(("http://", "https://")):
        return match.group()
    return f"{scheme}{MASK}@"


def _mask_query(match: re.Match[str]) -> str:
    mark, name, _ = match.groups()
    return f"{mark}{name}={MASK}" if name.lower() in _SIGNATURES or looks_secret(name) else match.group()


def without_secrets(arguments: Sequence[Any] | Iterable[Any]) -> list[str]:
    """Mask the secrets of a command line.

    Args:
        arguments: As in `sys.argv`: ``--token=…``, ``--token …``, ``model.api_key=…``, URLs.

    Returns:
        The arguments as text that any JSON holds, with `MASK` for secrets.
    """
    told: list[str] = []
    secret_follows = False
    for argument in arguments:
        text = str(argument).encode("utf-8", "backslashreplace").decode("utf-8")
        if secret_follows and not text.startswith("--"):
            told.append(MASK)
            secret_follows = False
            continue
        assigned = _ASSIGNED.match(text)
        secret_follows = assigned is None and text.startswith("-") and looks_secret(text)
        if assigned is not None and looks_secret(assigned[2].rsplit(".", 1)[-1]):
            told.append(f"{assigned[1]}{assigned[2]}={MASK}")
        else:
            told.append(_BEARER.sub(rf"\g<1>{MASK}", without_credentials(text)))
    return told
