"""Promises of the trees: every plain value comes back as it was, and nothing is run for it."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import math
import pathlib
import subprocess
import sys
import types
import uuid
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvc_callbacks import canonical, markers, tree
from mvc_callbacks.errors import CorruptRecord
from mvc_callbacks.tensors import Tensor


class FakeTensor:
    """Stands for any framework's tensor."""


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Config:
    rate: float
    token: str
    inner: Any = None


class Point(NamedTuple):
    x: int
    y: Any


class Text(str):
    __slots__ = ()


def is_tensor(value: Any) -> bool:
    return isinstance(value, FakeTensor)


def through(value: Any, **options: Any) -> Any:
    """Tell a value, write it as canonical JSON, read it and make it again."""
    encoded = tree.encode(value, is_tensor=is_tensor, **options)
    data = canonical.encode(encoded.json)
    return tree.decode(canonical.decode(data, what="test"), encoded.tensors)


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(a, b) and same(c, d) for (a, c), (b, d) in zip(one.items(), other.items(), strict=True)
        )
    if isinstance(one, (list, tuple, collections.deque)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


PLAIN = [
    None,
    True,
    False,
    0,
    -1,
    2**63 - 1,
    2**63,
    -(2**63),
    -(2**63) - 1,
    1 << 20000,
    0.0,
    -0.0,
    0.1,
    5e-324,
    math.inf,
    -math.inf,
    math.nan,
    "",
    "text",
    "é😀",
    "\ud800 lone",
    "\x00",
    1 + 2j,
    complex(math.nan, -0.0),
    b"",
    b"\x00\xff",
    bytearray(b"abc"),
    (),
    (1, (2, [3])),
    [],
    [[]],
    set(),
    {1, "a", (2, 3)},
    frozenset({1.5}),
    {},
    {"a": 1, "b": 2},
    {"b": 1, "a": 2},
    {1: "int", "1": "str", None: 0, (1, 2): []},
    {"$tensor": "not one"},
    {"$": {}},
    {"a": 1, "$b": 2},
    {"\udfff": 1},
    collections.OrderedDict([("z", 1), ("a", 2)]),
    collections.Counter("aab"),
    collections.deque([1, 2], maxlen=5),
    collections.deque(),
    pathlib.Path("/a/b"),
    pathlib.PurePosixPath("a"),
    pathlib.PureWindowsPath("c:\\x"),
    pathlib.Path("bad\udcff"),
    datetime.datetime(2026, 1, 2, 3, 4, 5, 678, fold=1),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
    datetime.date(2026, 1, 2),
    datetime.time(1, 2, 3, 4),
    datetime.timedelta(days=-1, microseconds=5),
    datetime.timezone(datetime.timedelta(hours=5, minutes=30)),
    decimal.Decimal("1.10"),
    fractions.Fraction(-1, 3),
    uuid.UUID(int=5),
    range(1, 10, 2),
    slice(1, None, "x"),
    ...,
    argparse.Namespace(b=1, a=[2]),
    types.SimpleNamespace(x=(1,)),
    int,
    dict,
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_a_plain_value_comes_back_as_it_was(value: Any) -> None:
    assert same(through(value), value)
    assert same(through({"k": [value]}), {"k": [value]})
    assert tree.encode(value, is_tensor=is_tensor).untold == ()


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=())),
    st.binary(),
    st.complex_numbers(),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.uuids(),
    st.dates(),
    st.datetimes(),
    st.times(),
    st.timedeltas(),
)
keys = st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.tuples(st.integers(), st.text()))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(keys, inner, max_size=5),
        st.dictionaries(st.sampled_from(["$tensor", "$tuple", "$", "a", "b"]), inner),
        st.frozensets(st.integers() | st.text(), max_size=4),
        st.dictionaries(st.text(), inner, max_size=4).map(collections.OrderedDict),
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(values)
def test_any_nesting_of_plain_values_comes_back_in_its_order(value: Any) -> None:
    assert same(through(value), value)


def test_what_is_json_already_stays_as_it_is() -> None:
    value = {"lr": 0.1, "names": ["a", None, True, 3], "sub": {"x": 1}}
    assert tree.encode(value, is_tensor=is_tensor).json == value


def test_order_may_be_given_up_for_readable_objects() -> None:
    value = {"lr": 0.1, "batch": 3}
    assert tree.encode(value, is_tensor=is_tensor).json == {"$dict": [["lr", 0.1], ["batch", 3]]}
    assert tree.encode(value, is_tensor=is_tensor, keep_order=False).json == value


def test_equal_sets_are_told_alike() -> None:
    one = tree.encode({"b", "a", "c", 1, (2,)}, is_tensor=is_tensor).json
    other = tree.encode({(2,), 1, "c", "a", "b"}, is_tensor=is_tensor).json
    assert canonical.encode(one) == canonical.encode(other)


def test_tensors_are_named_by_their_path_and_come_from_the_mapping() -> None:
    a, b, c, d = (FakeTensor() for _ in range(4))
    value = {"state": {0: {"exp_avg": a}, "0": {"exp_avg": b}}, "list": [c], "state.0": {"exp_avg": d}}
    encoded = tree.encode(value, is_tensor=is_tensor)
    assert encoded.tensors == {
        "state.0.exp_avg": a,
        "state.0.exp_avg#2": b,
        "list.0": c,
        "state.0.exp_avg#3": d,
    }
    back = tree.decode(encoded.json, encoded.tensors)
    assert back["state"][0]["exp_avg"] is a
    assert back["state"]["0"]["exp_avg"] is b
    assert back["list"] == [c]
    with pytest.raises(CorruptRecord, match="not there"):
        tree.decode(encoded.json, {})


def test_a_tensor_may_lie_in_the_tree_itself() -> None:
    neutral = Tensor("F32", (1,), memoryview(b"\x00\x00\x80\x3f"))
    encoded = tree.encode([FakeTensor()], is_tensor=is_tensor, inline=lambda _: neutral)
    assert encoded.tensors == {}
    (back,) = tree.decode(canonical.decode(canonical.encode(encoded.json), what="t"))
    assert (back.dtype, back.shape, bytes(back.data)) == ("F32", (1,), b"\x00\x00\x80\x3f")
    assert tree.decode(encoded.json, inline=lambda tensor: tensor.dtype) == ["F32"]


def test_what_names_code_comes_back_as_a_marker() -> None:
    here = __name__
    assert through(Colour.RED) == tree.Tagged("enum", f"{here}.Colour.RED", "red")
    assert through(Level.HIGH) == tree.Tagged("enum", f"{here}.Level.HIGH", 3)
    assert through(Config(0.1, "t")) == tree.Tagged(
        "dataclass", f"{here}.Config", {"rate": 0.1, "token": "t", "inner": None}
    )
    assert through(Config) == tree.Tagged("class", f"{here}.Config")
    assert through(is_tensor) == tree.Tagged("function", f"{here}.is_tensor")
    assert through(math.sqrt) == tree.Tagged("function", "math.sqrt")
    assert through(functools.partial(is_tensor, 1, value=2)) == tree.Tagged(
        "partial", f"{here}.is_tensor", ((1,), {"value": 2})
    )
    assert through({Colour.RED: 1}) == {tree.Tagged("enum", f"{here}.Colour.RED", "red"): 1}


def test_markers_are_told_again_as_they_were() -> None:
    value = [tree.Masked(), tree.Untold("a.B", "text"), tree.Tagged("enum", "a.B.C", (1, 2))]
    assert through(value) == value


def test_a_named_tuple_and_subclasses_of_plain_types_keep_their_values() -> None:
    back = through(Point(1, [2]))
    assert back == (1, [2])
    assert (back.x, back.y) == (1, [2])
    assert same(through(Text("t")), "t")
    factory = collections.defaultdict(list, {"b": [1], "a": []})
    assert same(through(factory), factory)
    assert through(factory)["new"] == []


def test_a_stream_of_bytes_comes_back_at_its_place() -> None:
    stream = io.BytesIO(b"abcdef")
    stream.seek(2)
    back = through(stream)
    assert (back.read(), back.getvalue()) == (b"cdef", b"abcdef")
    stream.close()
    assert isinstance(through(stream), tree.Untold)


def test_what_cannot_be_told_is_named_and_shown() -> None:
    class Thing:
        def __repr__(self) -> str:
            return "Thing " + "x" * 1000

    class Silent:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    class Liar(dict):  # type: ignore[type-arg]
        def keys(self) -> Any:
            raise RuntimeError("no")

        def __iter__(self) -> Any:
            raise RuntimeError("no")

    encoded = tree.encode(
        {"a": [Thing()], "b": Silent(), "f": lambda: 0, "l": Liar(x=1), "o": object()}, is_tensor=is_tensor
    )
    assert [each.split(":")[0] for each in encoded.untold] == ["a.0", "b", "f", "l", "o"]
    back = tree.decode(canonical.decode(canonical.encode(encoded.json), what="t"))
    assert isinstance(back["a"][0], tree.Untold)
    assert len(back["a"][0].text) == 200
    assert back["b"].text == "it has no repr"
    assert back["f"].kind == "function"
    assert back["o"].text == "<object object>"  # without an address, which would differ at every save
    assert [path for path, _ in tree.find_markers(back)] == ["a.0", "b", "f", "l", "o"]


def test_a_cycle_and_bottomless_nesting_are_told_as_such() -> None:
    cycle: dict[str, Any] = {"a": 1}
    cycle["self"] = [cycle]
    back = through(cycle)
    assert back["a"] == 1
    assert "cycle" in back["self"][0].text

    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert "nested too deeply" in str(through(deep))


def test_a_value_shared_by_many_is_not_told_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_MOST_VALUES", 1000)
    bomb: list[Any] = []
    for _ in range(60):
        bomb = [bomb, bomb]
    assert len(canonical.encode(tree.encode(bomb, is_tensor=is_tensor).json)) < 1_000_000


def test_long_values_are_capped_where_asked() -> None:
    value = {"text": "x" * 10_000_000, "list": list(range(5000)), "ok": "y", "inner": {"bytes": b"z" * 2000}}
    encoded = tree.encode(value, is_tensor=is_tensor, cap=1000)
    assert len(canonical.encode(encoded.json)) < 2000
    assert encoded.json["$dict"][2] == ["ok", "y"]
    assert [each.split(":")[0] for each in encoded.untold] == ["text", "list", "inner.bytes"]


def test_secrets_are_masked_wherever_a_name_tells() -> None:
    asked = []

    def masked(path: str, key: str, value: Any) -> bool:
        asked.append(path)
        return key == "token" and isinstance(value, str)

    value = {
        "token": "hf_123",
        "n": [{"token": "hf_123", 1: {"token": 5}}],
        "c": Config(0.1, "hf_123"),
        "ns": argparse.Namespace(token="hf_123"),
        "p": functools.partial(print, token="hf_123"),
    }
    encoded = tree.encode(value, is_tensor=is_tensor, masked=masked)
    assert b"hf_123" not in canonical.encode(encoded.json)
    back = tree.decode(encoded.json)
    assert isinstance(back["token"], tree.Masked)
    assert back["n"][0][1]["token"] == 5
    assert isinstance(back["ns"].token, tree.Masked)
    assert "n.0.1.token" in asked


@pytest.mark.parametrize(
    "told",
    [
        {"$nonsense": 1},
        {"$tuple": 5},
        {"$set": [[1]]},
        {"$dict": [[1]]},
        {"$dict": [[{"a": 1}, 2]]},
        {"$bytes": "é"},
        {"$bytes": 5},
        {"$int": "zz"},
        {"$float": "1"},
        {"$a": 1, "b": 2},
        {"$tensor": []},
        {"$datetime": ["x", 0]},
        {"$fraction": "1e999999999"},
        {"$fraction": "1/0"},
        {"$decimal": "x"},
        {"$uuid": "x"},
        {"$complex": [1, 2, 3]},
        {"$namedtuple": ["a.P", ["x y"], [1]]},
        {"$namedtuple": ["a.P", ["x"], []]},
        {"$namedtuple": ["a.P", [1], [1]]},
        {"$complex": [{"$float": "huge"}, 1]},
        {"$object": 1},
        {"$namedtuple": ["a.P", ["__import__('os')"], [1]]},
        {"$numpy": {}},
        {"$npscalar": {"dtype": "O", "data": ""}},
        {"$numpy": {"dtype": "|O8", "shape": [1], "data": "AAAAAAAAAAA="}},
        {"$numpy": {"dtype": "<f8", "shape": [9], "data": ""}},
        {"$inline": ["F32", [2], ""]},
        {"$inline": ["X", [], ""]},
        {"$array": ["x", "<f4"]},
        {"$torch": ["dtype"]},
        {"$timedelta": [10**30, 0, 0]},
        {"$range": [1, 2, 0]},
        {"$path": 5},
        {"$deque": [-1, []]},
    ],
    ids=lambda told: ascii(told)[:50],
)
def test_a_tree_made_by_a_stranger_is_refused_by_one_error(told: Any) -> None:
    with pytest.raises(CorruptRecord):
        tree.decode(told)


def test_a_class_named_by_a_stranger_is_not_imported() -> None:
    sys.modules.pop("antigravity", None)
    for told in (
        {"$class": "antigravity.x"},
        {"$enum": ["antigravity.x", "y", 1]},
        {"$object": ["antigravity.x", {}]},
    ):
        tree.decode(told)
    assert tree.decode({"$class": "os.system"}) == tree.Tagged("class", "os.system")
    assert tree.decode({"$torch": ["dtype", "onnx"]}) == tree.Tagged("torch", "torch.dtype", "onnx")
    assert "antigravity" not in sys.modules


def test_numpy_values_come_back_with_dtype_and_shape() -> None:
    np = pytest.importorskip("numpy")
    arrays = [
        np.array(0.5),
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.array([True]),
        np.zeros((0, 3)),
        np.array(["ab", "c"]),
        np.array([1 + 2j], dtype=np.complex64),
        np.array(["2026-01-01"], dtype="M8[D]"),
        np.asfortranarray(np.eye(3)),
        np.arange(5000.0).reshape(50, 100)[::2],
        np.array([np.nan, -0.0]),
        np.array([b"x"]),
    ]
    for array in arrays:
        back = through([array])[0]
        assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert back.flags.writeable
    for scalar in (
        np.float32(0.1),
        np.int64(5),
        np.bool_(True),
        np.str_("x"),
        np.datetime64("2026-01-01"),
        np.float64("nan"),
    ):
        back = through(scalar)
        assert type(back) is type(scalar)
        assert back.tobytes() == scalar.tobytes()
    assert through(np.dtype("float32")) == np.dtype("float32")


def test_a_large_numpy_array_is_kept_like_a_tensor() -> None:
    np = pytest.importorskip("numpy")
    array = np.arange(5000, dtype=np.float32)
    encoded = tree.encode({"x": array}, is_tensor=is_tensor)
    assert encoded.json == {"x": {"$array": ["x", "<f4"]}}
    assert encoded.tensors["x"].shape == (5000,)
    assert (tree.decode(encoded.json, encoded.tensors)["x"] == array).all()


def test_object_arrays_and_generators_of_numpy_are_untold() -> None:
    np = pytest.importorskip("numpy")
    value = {"a": np.array([object()]), "r": np.random.default_rng(0), "v": np.zeros(2, dtype=[("a", "i4")])}
    encoded = tree.encode(value, is_tensor=is_tensor)
    assert [each.split(":")[0] for each in encoded.untold] == ["a", "r", "v"]


def test_torch_dtypes_devices_and_sizes_come_back() -> None:
    torch = pytest.importorskip("torch")
    value = [torch.float32, torch.bfloat16, torch.device("cuda:1"), torch.Size([2, 3])]
    assert same(through(value), value)


def test_omegaconf_comes_back_resolved_and_never_resolves_again() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create({"b": 2, "a": "${b}", "l": [1, {"x": "???"}], "t": "\\${b}"})
    back = through({"cfg": config})["cfg"]
    assert isinstance(back, omegaconf.DictConfig)
    assert list(back) == ["b", "a", "l", "t"]
    assert back.a == 2
    assert back.t == "${b}"
    assert omegaconf.OmegaConf.is_missing(back.l[1], "x")
    masked = through({"cfg": config}, masked=lambda path, key, value: key == "t")["cfg"]
    assert isinstance(masked["t"], tree.Masked)
    assert through(type(config)) is omegaconf.DictConfig


def test_trees_need_no_array_library() -> None:
    code = (
        "import sys; from mvc_callbacks import tree;"
        "tree.decode(tree.encode([1, {2: (3,)}], is_tensor=lambda _: False).json);"
        "print([m for m in ('numpy', 'torch', 'omegaconf', 'lightning') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_a_tree_that_was_never_written_is_read_too() -> None:
    value = [math.inf, -math.inf, math.nan, complex(-math.inf, math.nan)]
    assert same(tree.decode(tree.encode(value, is_tensor=is_tensor).json), value)


def test_large_arrays_that_are_no_tensors_lie_in_the_tree_or_are_untold() -> None:
    np = pytest.importorskip("numpy")
    texts = np.full(5000, "text")
    assert (through(texts) == texts).all()
    encoded = tree.encode({"m": np.ma.zeros(5000)}, is_tensor=is_tensor)
    assert [each.split(":")[0] for each in encoded.untold] == ["m"] and encoded.tensors == {}


def test_without_numpy_its_values_are_markers(monkeypatch: pytest.MonkeyPatch) -> None:
    np = pytest.importorskip("numpy")
    told = tree.encode([np.arange(3), np.float32(1), np.dtype("i4")], is_tensor=is_tensor).json
    monkeypatch.setitem(sys.modules, "numpy", None)
    back = tree.decode(told)
    assert back == [
        tree.Tagged("numpy", "<i8", [3]),
        tree.Tagged("numpy", "<f4", []),
        tree.Tagged("numpy", "<i4", [0]),
    ]


def test_what_omegaconf_cannot_do_is_told_in_plain_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create({"a": "${nobody:1}"})
    back = through({"cfg": config})["cfg"]
    assert omegaconf.OmegaConf.to_container(back, resolve=True) == {"a": "${nobody:1}"}

    def fails(*_: Any, **__: Any) -> Any:
        raise omegaconf.errors.OmegaConfBaseException("not today")

    monkeypatch.setattr(omegaconf.OmegaConf, "create", fails)
    assert through({"cfg": config})["cfg"] == {"a": "${nobody:1}"}


def test_tensors_of_a_value_that_fails_while_it_is_told_are_not_kept() -> None:
    @dataclasses.dataclass
    class Lazy:
        holder: Any

        def __getattribute__(self, name: str) -> Any:
            holder = object.__getattribute__(self, "holder")
            holder["made when it was looked at"] = 1  # a dict that changes while it is gone through
            return None

    value: dict[str, Any] = {"first": FakeTensor()}
    value["lazy"] = Lazy(value)
    encoded = tree.encode({"a": value, "b": FakeTensor()}, is_tensor=is_tensor)
    assert list(encoded.tensors) == ["b"]
    assert "RuntimeError while it was told" in str(encoded.json)


def test_markers_go_where_they_can_and_become_none_elsewhere() -> None:
    masked, untold = tree.Masked(), tree.Untold("a.B")
    assert (repr(masked), repr(untold)) == ("<masked>", "<untold a.B>")
    assert markers.without_markers(masked) is None
    value = {
        "kept": (1, 2),
        "secret": masked,
        untold: "its name is gone",
        "list": [1, untold, {"x": masked}],
        "tuple": (masked, 1),
        "set": {1, untold},
        "space": types.SimpleNamespace(a=1, b=masked),
        "settings": argparse.Namespace(c=[masked]),
    }
    found = [path for path, _ in markers.find_markers(value)]
    assert sorted(found) == sorted(
        [
            "secret",
            "",
            "list.1",
            "list.2.x",
            "tuple.0",
            next(p for p in found if p.startswith("set")),
            "space.b",
            "settings.c.0",
        ]
    )
    assert markers.without_markers(value) == {
        "kept": (1, 2),
        "list": [1, None, {}],
        "tuple": (None, 1),
        "set": {1},
        "space": types.SimpleNamespace(a=1),
        "settings": argparse.Namespace(c=[None]),
    }
    # What cannot be changed is left as it is.
    fixed = types.MappingProxyType({"a": masked})
    assert markers.without_markers(fixed) is fixed


def test_an_array_that_is_given_back_as_a_tensor_or_an_array_is_one_of_its_own() -> None:
    np = pytest.importorskip("numpy")
    array = np.arange(3, dtype="f4")
    for kept in (array, types.SimpleNamespace(numpy=lambda: array)):
        back = tree.decode({"x": {"$array": ["x", "<f4"]}}, {"x": kept})["x"]
        assert (back == array).all() and not np.shares_memory(back, array)
