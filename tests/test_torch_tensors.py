"""Promises of torch's tensors: the same bits there and back, or refused by name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load, save, save_file  # noqa: E402

from mvc_callbacks.errors import IncompatibleModel, UnsupportedTensor  # noqa: E402
from mvc_callbacks.packs import SINGLE  # noqa: E402
from mvc_callbacks.tensors import ITEM_SIZE, STORED_AS_BYTES, Tensor  # noqa: E402
from mvc_callbacks.torch_tensors import (  # noqa: E402
    _BY_DTYPE,
    copy_into,
    dtype_name,
    from_neutral,
    nonfinite,
    to_neutral,
    why_unsupported,
)

DTYPES = sorted(_BY_DTYPE, key=str)
NATIVE = [dtype for dtype in DTYPES if _BY_DTYPE[dtype] not in STORED_AS_BYTES]
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def random_bits(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Return a tensor of all kinds of bits: NaN payloads, infinities, subnormals."""
    size = ITEM_SIZE[_BY_DTYPE[dtype]]
    raw = torch.randint(0, 256, (*shape, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    if dtype == torch.bool:
        raw &= 1
    return raw.contiguous().view(dtype).reshape(shape)


def bits(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def test_bad_input_30_every_dtype_of_torch_is_kept_or_refused_by_name() -> None:
    for dtype in {each for each in vars(torch).values() if isinstance(each, torch.dtype)}:
        if dtype in _BY_DTYPE:
            assert dtype_name(dtype) in ITEM_SIZE
            assert dtype.itemsize == ITEM_SIZE[dtype_name(dtype)]
        else:
            with pytest.raises(UnsupportedTensor, match=str(dtype)):
                dtype_name(dtype)
    assert set(_BY_DTYPE.values()) <= set(ITEM_SIZE)  # older releases of torch lack some


@EVERY_DTYPE
@pytest.mark.parametrize("shape", [(), (5,), (0,), (3, 0, 2), (2, 3, 4)], ids=str)
def test_bad_input_29_30_every_dtype_and_shape_comes_back_with_the_same_bits(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    tensor = random_bits(dtype, *shape)
    neutral = to_neutral(tensor)
    assert bytes(neutral.data) == bits(tensor)
    back = from_neutral(neutral)
    assert (back.dtype, back.shape, bits(back)) == (tensor.dtype, tensor.shape, bits(tensor))
    copy_into(neutral, target := torch.empty_like(tensor))
    assert bits(target) == bits(tensor)


@EVERY_DTYPE
def test_a_strided_tensor_of_every_dtype_is_kept_and_filled_by_its_values(dtype: torch.dtype) -> None:
    tensor = random_bits(dtype, 3, 4)
    expected = b"".join(bits(tensor[row, at : at + 1]) for at in range(4) for row in range(3))
    neutral = to_neutral(tensor.t())
    assert (neutral.shape, bytes(neutral.data)) == ((4, 3), expected)
    target = torch.empty_like(tensor).t()
    copy_into(neutral, target)
    assert bits(target.t()) == bits(tensor)


@pytest.mark.parametrize("dtype", NATIVE, ids=str)
@pytest.mark.parametrize("shape", [(), (5,), (0,), (2, 3), (1, 1, 1, 1, 1, 1, 7)], ids=str)
def test_a_natively_stored_tensor_is_the_file_that_stock_safetensors_writes(
    dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Path
) -> None:
    tensor = random_bits(dtype, *shape)
    neutral = to_neutral(tensor)
    ours = neutral.header() + neutral.data
    assert ours == save({SINGLE: tensor})
    save_file({SINGLE: tensor}, tmp_path / "file")
    assert ours == (tmp_path / "file").read_bytes()
    assert bits(load(ours)[SINGLE]) == bits(tensor)


def test_bad_input_35_negative_zero_infinities_and_nan_payloads_keep_their_bits() -> None:
    tensor = torch.tensor([0x7FC00001, 0x7F800001, -0x80000000, 0x7F800000], dtype=torch.int64).to(
        torch.int32
    )
    tensor = tensor.view(torch.float32)
    assert bits(from_neutral(to_neutral(tensor))) == bits(tensor)
    assert bits(from_neutral(to_neutral(tensor[::2]))) == bits(tensor[::2])


def test_bad_input_31_views_are_kept_by_their_values() -> None:
    base = torch.arange(24.0).reshape(2, 3, 4)
    wave = torch.complex(torch.randn(3, 4), torch.randn(3, 4))
    for view in (
        base.transpose(0, 2),
        base[:, ::2],
        base[0, 0, 0].expand(5, 2),
        base.flip(0),
        base[1:],
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        wave.conj(),
        wave.t().conj(),
        wave.conj().imag,
        wave.imag,
        wave.conj().real,
        torch._neg_view(base),
        wave[:, ::2].conj(),
        wave.to(torch.complex128).conj(),
    ):
        neutral = to_neutral(view)
        assert neutral.shape == tuple(view.shape)
        assert torch.equal(from_neutral(neutral), view)
        copy_into(neutral, target := torch.zeros_like(view, memory_format=torch.contiguous_format))
        assert torch.equal(target, view)


def test_a_conjugated_target_is_filled_by_value() -> None:
    wave = torch.complex(torch.randn(3), torch.randn(3))
    target = torch.zeros(3, dtype=torch.complex64).conj()
    copy_into(to_neutral(wave), target)
    assert torch.equal(target, wave)


def test_a_contiguous_tensor_is_not_copied_and_is_kept_alive() -> None:
    tensor = torch.arange(1000.0)
    neutral = to_neutral(tensor)
    tensor[0] = 7.0
    assert bytes(neutral.data[:4]) == b"\x00\x00\xe0\x40"
    view = neutral.data[4:8]
    del tensor, neutral
    junk = [torch.zeros(1000) for _ in range(50)]
    assert bytes(view) == b"\x00\x00\x80\x3f"
    del junk


def test_bad_input_32_only_the_slice_of_a_huge_storage_is_kept() -> None:
    base = torch.zeros(1_000_000)
    assert to_neutral(base[10:20]).nbytes == 40
    assert to_neutral(base[::100_000]).nbytes == 40


def test_what_comes_back_has_memory_of_its_own_and_may_be_written() -> None:
    neutral = Tensor("F32", (2,), memoryview(b"\x00" * 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, other = from_neutral(neutral), from_neutral(neutral)
    one += 1
    assert other.sum() == 0
    assert bytes(neutral.data) == b"\x00" * 8


def test_parameters_subclasses_and_inference_tensors_are_kept() -> None:
    class Named(torch.Tensor):
        pass

    with torch.inference_mode():
        inference = torch.arange(4.0)
    for tensor in (
        torch.nn.Parameter(torch.arange(4.0)),
        torch.arange(4.0).as_subclass(Named),
        inference,
        torch.arange(4.0, requires_grad=True),
        torch.nn.Buffer(torch.arange(4.0)),
    ):
        neutral = to_neutral(tensor)
        assert type(from_neutral(neutral)) is torch.Tensor
        copy_into(Tensor("F32", (4,), memoryview(b"\x00" * 16)), tensor)
        assert float(tensor.sum()) == 0.0


def unsupported() -> list[tuple[str, Any]]:
    lazy = torch.nn.LazyLinear(3)
    quantised = torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)
    fake = torch._subclasses.fake_tensor.FakeTensorMode().from_tensor(torch.zeros(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.masked import masked_tensor

        masked = masked_tensor(torch.zeros(2), torch.tensor([True, False]))
        csr = torch.eye(3).to_sparse_csr()
        nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    jagged = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)
    return [
        ("sparse", torch.eye(3).to_sparse()),
        ("sparse", csr),
        ("nested", nested),
        ("nested", jagged),
        ("qint8", quantised),
        ("meta", torch.empty(3, device="meta")),
        ("uninitialised", lazy.weight),
        ("uninitialised", torch.nn.UninitializedBuffer()),
        ("FakeTensor", fake),
        ("MaskedTensor", masked),
        ("int4", torch.empty(2, dtype=torch.uint8).view(torch.int4)),
        ("bits8", torch.empty(2, dtype=torch.uint8).view(torch.bits8)),
    ]


def test_bad_input_27_28_what_cannot_be_kept_is_refused_by_name_and_reason() -> None:
    for reason, tensor in unsupported():
        assert reason in str(why_unsupported(tensor)), reason
        with pytest.raises(UnsupportedTensor, match=f"(?s)'layer.w'.*{reason}"):
            to_neutral(tensor, name="layer.w")


def test_another_shape_or_dtype_is_refused_and_nothing_copied() -> None:
    neutral = to_neutral(torch.ones(2, 3))
    for target in (
        torch.zeros(3, 2),
        torch.zeros(6),
        torch.zeros(2, 3, dtype=torch.float64),
        torch.zeros(1, 3),
    ):
        with pytest.raises(IncompatibleModel, match="'w'"):
            copy_into(neutral, target, name="w")
        assert not target.any()


def test_a_dtensor_is_gathered() -> None:
    class Sharded(torch.Tensor):
        def full_tensor(self) -> torch.Tensor:
            return torch.arange(3.0)

    assert bytes(to_neutral(torch.zeros(1).as_subclass(Sharded)).data) == bits(torch.arange(3.0))


@EVERY_DTYPE
def test_nan_and_infinity_are_found_in_every_dtype_that_has_them(dtype: torch.dtype) -> None:
    assert not nonfinite(torch.empty(0, dtype=dtype))
    zeros = torch.zeros(64, dtype=torch.uint8).view(dtype)
    assert not nonfinite(zeros)
    if dtype.is_complex:
        spoiled = torch.zeros(8, dtype=dtype)
        spoiled[3] = complex(0, float("inf"))
        assert nonfinite(spoiled)
    elif dtype.is_floating_point and dtype != getattr(torch, "float4_e2m1fn_x2", None):
        spoiled = torch.tensor([1.0, float("nan")]).to(dtype)
        assert nonfinite(spoiled)
    if dtype in (torch.float16, torch.float32, torch.float64, torch.bfloat16):
        assert nonfinite(torch.tensor([float("inf"), float("-inf"), 1.0], dtype=dtype))
        assert not nonfinite(
            torch.full((100,), torch.finfo(dtype).max, dtype=dtype)
        )  # their sum is not finite
