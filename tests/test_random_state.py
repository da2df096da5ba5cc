"""Random state: every generator draws again what it drew, and those that are not there are told."""

from __future__ import annotations

import random
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from mvc_callbacks import random_state

np = pytest.importorskip("numpy")


def as_it_is(data: bytes) -> bytes:
    return data


def generators() -> dict[str, Any]:
    """Make one of each kind that objects hold."""
    old = np.random.RandomState(3)
    old.randn()  # it has the second half of a pair in store
    made: dict[str, Any] = {
        "python": random.Random(5),
        "new": np.random.default_rng(4),
        "old": old,
        "philox": np.random.Generator(np.random.Philox(6)),
        "twister": np.random.Generator(np.random.MT19937(7)),
    }
    made["python"].gauss(0, 1)
    return made


def drawn(generator: Any) -> list[float]:
    draw = generator.gauss if isinstance(generator, random.Random) else generator.normal
    return [float(draw(0, 1)) for _ in range(5)]


def test_generators_that_objects_hold_are_found_once_and_draw_again_what_they_drew() -> None:
    made = generators()
    holder = SimpleNamespace(**made, again=made["new"], system=random.SystemRandom())
    found = random_state.held({"holder": holder, "same": holder, "alone": random.Random(8)})
    assert sorted(found) == ["alone", *(f"holder.{name}" for name in sorted(made))]
    kept = random_state.capture_held(found, as_it_is)
    first = {path: drawn(each) for path, each in found.items()}
    assert random_state.put_back_held(found, kept, as_it_is) == ()
    assert {path: drawn(each) for path, each in found.items()} == first


def test_generators_of_torch_are_found_but_for_the_global_one() -> None:
    torch = pytest.importorskip("torch")
    own = torch.Generator().manual_seed(9)
    found = random_state.held({"holder": SimpleNamespace(own=own, shared=torch.default_generator)})
    assert found == {"holder.own": own}
    kept = random_state.capture_held(found, as_it_is)
    first = torch.rand(3, generator=own)
    assert random_state.put_back_held(found, kept, as_it_is) == ()
    assert torch.rand(3, generator=own).equal(first)


def test_a_state_without_a_generator_and_a_generator_without_a_state_are_told() -> None:
    kept = random_state.capture_held({"a": random.Random(1), "b": random.Random(2)}, as_it_is)
    lost = random_state.put_back_held({"b": random.Random(), "c": random.Random()}, kept, as_it_is)
    assert lost == ("a", "c")


def globally() -> list[float]:
    return [random.random(), random.gauss(0, 1), float(np.random.rand()), float(np.random.randn())]


def test_the_global_generators_draw_again_what_they_drew() -> None:
    torch = pytest.importorskip("torch")
    kept = random_state.capture(as_it_is)
    first = (globally(), torch.rand(1).item())
    random_state.put_back(kept, as_it_is)
    assert (globally(), torch.rand(1).item()) == first


@pytest.mark.parametrize("torch", [None, SimpleNamespace()], ids=["not loaded", "half loaded"])
def test_without_torch_the_others_draw_again_what_they_drew(
    torch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch)
    kept = random_state.capture(as_it_is)
    assert sorted(kept) == ["numpy", "python"]
    first = globally()
    random_state.put_back(kept, as_it_is)
    assert globally() == first
    assert not random_state.held({"holder": SimpleNamespace(of_no_library=object())})


def test_where_numpy_is_not_loaded_nothing_is_told_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    kept = random_state.capture(as_it_is)
    assert list(kept) == ["python"]
    first = random.random()
    random_state.put_back(kept, as_it_is)
    assert random.random() == first


class Machine:
    """Devices that this machine has not: what they are given is kept and given back."""

    def __init__(self, torch: Any, monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool) -> None:
        self.states = {"cuda": [torch.tensor([each], dtype=torch.uint8) for each in range(cuda)]}
        self.mps = torch.tensor([77], dtype=torch.uint8)
        self.given: list[Any] = []
        for module, name, told in (
            (torch.cuda, "is_available", lambda: cuda > 0),
            (torch.cuda, "is_initialized", lambda: cuda > 0),
            (torch.cuda, "device_count", lambda: cuda),
            (torch.cuda, "get_rng_state_all", lambda: self.states["cuda"]),
            (torch.cuda, "manual_seed_all", lambda seed: self.given.append(seed)),
            (torch.cuda, "set_rng_state_all", lambda each: self.given.append([s.tolist() for s in each])),
            (torch.backends.mps, "is_available", lambda: mps),
            (torch.mps, "get_rng_state", lambda: self.mps),
            (torch.mps, "set_rng_state", lambda each: self.given.append(each.tolist())),
        ):
            monkeypatch.setattr(module, name, told)


def test_devices_get_their_states_back_as_far_as_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    here = Machine(torch, monkeypatch, cuda=2, mps=True)
    kept = random_state.capture(as_it_is)
    random_state.put_back(kept, as_it_is)
    assert here.given == [[[0], [1]], [77]]
    fewer = Machine(torch, monkeypatch, cuda=1, mps=False)
    random_state.put_back(kept, as_it_is)
    assert fewer.given == []
    random_state.put_back({"python": kept["python"]}, as_it_is)  # kept where neither library was loaded
    assert fewer.given == []


def test_devices_that_were_not_begun_get_the_seed_that_there_was(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    Machine(torch, monkeypatch, cuda=0, mps=False)
    torch.default_generator.manual_seed(5)
    kept = random_state.capture(as_it_is)
    assert "cuda" not in kept
    torch.default_generator.manual_seed(9)
    begun = Machine(torch, monkeypatch, cuda=2, mps=False)
    random_state.put_back(kept, as_it_is)
    assert begun.given == [5]
