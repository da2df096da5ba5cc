"""A process that has imported what is needed once, and forks children that may be killed."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Child", "Forker"]


class Child:
    """A process that was forked.

    Args:
        pid: Its id.
        out: The file that it appends lines to.
    """

    def __init__(self, pid: int, out: Path) -> None:
        self.pid = pid
        self.out = out

    def lines(self) -> list[Any]:
        """Return what it told so far, decoded; half a line at the end was not told."""
        text = self.out.read_text("utf-8") if self.out.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def alive(self) -> bool:
        """Tell whether it runs."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        """Kill it as nothing can be caught, and wait until it is gone."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.wait(60)

    def wait(self, seconds: float) -> None:
        """Wait until it is gone."""
        deadline = time.monotonic() + seconds
        while self.alive():
            assert time.monotonic() < deadline, f"process {self.pid} still runs after {seconds} s"
            time.sleep(0.002)

    def wait_for_line(self, seconds: float) -> None:
        """Wait until it told something."""
        deadline = time.monotonic() + seconds
        while not self.lines() and self.alive():
            assert time.monotonic() < deadline, f"process {self.pid} says nothing in {seconds} s"
            time.sleep(0.002)


class Forker:
    """Starts the process.

    Args:
        module: A module beside a test; its functions are what children do. They take ``tell``, which appends
            a line that a kill does not take back, and what `start` is given.
        folder: The module's folder.
    """

    def __init__(self, module: str, folder: Path) -> None:
        path = os.pathsep.join([str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, __file__, module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )

    def start(self, function: str, out: Path, *args: Any) -> Child:
        """Fork a child that does something."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([function, str(out), args]) + "\n")
        self._process.stdin.flush()
        return Child(int(self._process.stdout.readline()), out)

    def __enter__(self) -> Forker:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)


def _main(module: str) -> None:
    work = importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are gone at once, and their ids with them
    for line in sys.stdin:
        function, out, args = json.loads(line)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
                os.dup2(2, 1)

                def tell(what: Any, descriptor: int = descriptor) -> None:
                    os.write(descriptor, json.dumps(what).encode() + b"\n")

                getattr(work, function)(tell, *args)
                status = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(status)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main(sys.argv[1])
