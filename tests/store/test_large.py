"""A huge tensor is saved, verified and read in bounded memory."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
from pathlib import Path

import pytest
from torture_kit import TORTURE, figure

MIB = 1 << 20
SIZE = (4096 if TORTURE else 160) * MIB + 4096
"""Over 4 GiB takes minutes: `nox -s torture` does that, and the ordinary tests the same with less."""

_CHILD = """
import json, mmap, sys, threading, time
from pathlib import Path
from mvc_callbacks.snapshot import Snapshot
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import State, Tensor

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

most, stop = [anonymous()], threading.Event()
def watch():
    while not stop.wait(0.01):
        most.append(anonymous())
before = anonymous()
watcher = threading.Thread(target=watch)
watcher.start()
path, source = sys.argv[1:]
with open(source, "rb") as file:
    data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
store = VersionStore(path)
shot = Snapshot(State({"huge": Tensor("U8", (len(data),), data)}))
store.open_run("base", framework="torch").commit(shot)
report = store.verify(full=True)
read = store.tensors("base/1")["huge"]
same = read.data[:4096] == data[:4096] and read.data[-4096:] == data[-4096:]
stop.set()
watcher.join()
print(json.dumps([report.ok, report.bytes, read.nbytes, bool(same), max(most) - before]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured as Linux tells it")
def test_bad_input_33_a_huge_tensor_is_saved_and_read_in_bounded_memory(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(SIZE)  # a sparse file
    with source.open("r+b") as file, mmap.mmap(file.fileno(), SIZE) as data:
        data[SIZE // 2 : SIZE // 2 + 4], data[-4:] = b"over", b"last"
    command = [sys.executable, "-c", _CHILD, str(tmp_path / "store"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    ok, read, size, same, memory = json.loads(done.stdout)
    assert ok and same
    assert (size, read > SIZE) == (SIZE, True)
    assert memory < SIZE // 4 and memory < 256 * MIB
    figure("bytes of a tensor that was saved, verified and read in bounded memory", SIZE)
