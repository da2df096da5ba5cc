"""What `harness.apart` runs: one function of a benchmark, in this process alone."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path


def main() -> None:
    """Call what the command line names, and write what it returns."""
    name, answer, arguments = sys.argv[1:]
    module, _, function = name.partition(":")
    result = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    Path(answer).write_text(json.dumps(result), "utf-8")


if __name__ == "__main__":
    main()
