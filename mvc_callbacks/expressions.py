"""Conditions such as ``lr<1e-3 and val_loss<0.5``, read by a small parser, never evaluated as code."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mvc_callbacks.errors import Misconfigured

__all__ = ["Condition", "parse"]

Lookup = Callable[[str], Any]
LONGEST = 2000
DEEPEST = 40
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | `(?P<quoted>[^`]+)`
    | (?P<name>[^\W\d][\w./-]*)
    | (?P<sign><=|>=|==|!=|<|>|=|~|\(|\))
    )""",
    re.VERBOSE,
)
_SIGNS = ("<=", ">=", "==", "!=", "<", ">", "=", "~")
_CONSTANTS: Mapping[str, Any] = {
    "true": True,
    "false": False,
    "none": None,
    "null": None,
    "nan": float("nan"),
    "inf": float("inf"),
}
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
UNKNOWN = object()
_HELP = "write for example: lr<1e-3 and (val_loss<0.5 or run=='baseline')"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition.

    Attributes:
        names: The names that it asks for, in order.
        holds: Given what a name's value is, whether it holds. A name without a value answers with
            ``Condition.unknown()``; what depends on it is then not known, which is not true.
    """

    names: tuple[str, ...]
    holds: Callable[[Lookup], bool]

    @staticmethod
    def unknown() -> Any:
        """Return what stands for a value that is not there."""
        return UNKNOWN


def parse(text: str) -> Condition:
    """Read a condition.

    Comparisons ``< <= > >= == !=`` and ``~`` (contains the text, whatever its case) of names, numbers and
    texts, joined by ``and``, ``or``, ``not`` and parentheses. An odd name stands in backquotes.

    Args:
        text: What a user typed.

    Returns:
        The condition.

    Raises:
        Misconfigured: If it cannot be read; the message shows where.
    """
    parser = _Parser(text)
    node = parser.whole()
    names = tuple(dict.fromkeys(parser.names))
    return Condition(names, lambda lookup: node(lookup) is True)


Node = Callable[[Lookup], "bool | None"]  # None: not known
Value = Callable[[Lookup], Any]


class _Parser:
    """Goes through the tokens once, from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: list[str] = []
        self.tokens = self._tokens()
        self.place = 0
        self.depth = 0

    def _tokens(self) -> list[_Token]:
        if len(self.text) > LONGEST:
            raise Misconfigured(f"a condition of {len(self.text)} letters is too long; {_HELP}")
        found, at = [], 0
        while self.text[at:].strip():
            match = _TOKEN.match(self.text, at)
            if match is None:
                raise self._refusal(len(self.text[:at]) + len(self.text[at:]) - len(self.text[at:].lstrip()))
            kind = str(match.lastgroup)
            found.append(_Token(kind, match[kind], match.start(kind)))
            at = match.end()
        return found

    def _refusal(self, at: int | None = None) -> Misconfigured:
        if at is None:
            at = self.tokens[self.place].at if self.place < len(self.tokens) else len(self.text)
        where = f"at {self.text[at : at + 20]!r}" if at < len(self.text) else "at its end"
        return Misconfigured(f"the condition {self.text!r:.200} cannot be read {where}\n{_HELP}")

    def _next(self, *words: str) -> str | None:
        """Take the next token if it is one of these words or signs."""
        if self.place < len(self.tokens):
            token = self.tokens[self.place]
            if token.kind in ("name", "sign") and token.text.lower() in words:
                self.place += 1
                return token.text.lower()
        return None

    def whole(self) -> Node:
        node = self._any()
        if self.place < len(self.tokens):
            raise self._refusal()
        return node

    def _any(self) -> Node:
        node = self._all()
        while self._next("or"):
            node = _or(node, self._all())
        return node

    def _all(self) -> Node:
        node = self._one()
        while self._next("and"):
            node = _and(node, self._one())
        return node

    def _one(self) -> Node:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Misconfigured(f"the condition {self.text!r:.80} nests too deeply")
        try:
            if self._next("not"):
                return _not(self._one())
            if self._next("("):
                node = self._any()
                if not self._next(")"):
                    raise self._refusal()
                return node
            return self._comparison()
        finally:
            self.depth -= 1

    def _comparison(self) -> Node:
        left = self._value()
        sign = self._next(*_SIGNS)
        if sign is None:
            raise self._refusal()
        bare = self.tokens[self.place] if self.place < len(self.tokens) else None
        if sign == "~" and bare is not None and bare.kind == "name":
            self.place += 1
            return _compared(left, sign, lambda _: bare.text)
        return _compared(left, sign, self._value())

    def _value(self) -> Value:
        if self.place >= len(self.tokens):
            raise self._refusal()
        token = self.tokens[self.place]
        if token.kind == "sign" or (token.kind == "name" and token.text.lower() in ("and", "or", "not")):
            raise self._refusal()
        self.place += 1
        constant: Any
        if token.kind == "number":
            constant = float(token.text) if re.search(r"[.eE]", token.text) else int(token.text)
        elif token.kind == "text":
            constant = re.sub(r"\\(.)", r"\1", token.text[1:-1])
        elif token.kind == "name" and token.text.lower() in _CONSTANTS:
            constant = _CONSTANTS[token.text.lower()]
        else:
            name = token.text
            self.names.append(name)
            return lambda lookup: lookup(name)
        return lambda _: constant


def _or(left: Node, right: Node) -> Node:
    def either(lookup: Lookup) -> bool | None:
        a, b = left(lookup), right(lookup)
        return True if a or b else None if a is None or b is None else False

    return either


def _and(left: Node, right: Node) -> Node:
    def both(lookup: Lookup) -> bool | None:
        a, b = left(lookup), right(lookup)
        return False if a is False or b is False else None if a is None or b is None else True

    return both


def _not(node: Node) -> Node:
    def other(lookup: Lookup) -> bool | None:
        found = node(lookup)
        return None if found is None else not found

    return other


def _compared(left: Value, sign: str, right: Value) -> Node:
    def compare(lookup: Lookup) -> bool | None:
        a, b = left(lookup), right(lookup)
        return None if a is UNKNOWN or b is UNKNOWN else _holds(a, sign, b)

    return compare


def _holds(a: Any, sign: str, b: Any) -> bool | None:
    if sign == "~":
        return str(b).lower() in str(a).lower()
    if _is_number(a) and _is_number(b) and (a != a or b != b) and sign in ("==", "=", "!="):
        return bool((a != a and b != b) == (sign != "!="))  # who writes loss == nan looks for NaN
    if sign in ("==", "=", "!="):
        return bool(a == b) == (sign != "!=")
    if not ((_is_number(a) and _is_number(b)) or (isinstance(a, str) and isinstance(b, str))):
        return None  # 3 < "x" has no answer
    return bool(_ORDERS[sign](a, b))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
