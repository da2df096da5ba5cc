"""Transcripts: documents whose shell sessions are run, and whose output is compared or written anew.

``python tests/transcript.py docs/tour.md`` runs the tour in a temporary folder and writes its output, and its
pictures with a Chromium, as they are now.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
_FILE = re.compile(
    r"<!-- file: (\S+) -->\n(?:<!-- not run -->\n)?```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL
)
_SESSION = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
WIDTH = "110"


def stable(output: str) -> list[str]:
    """Keep what is the same on every machine: no ids, times, paths, sizes, metrics or widths of columns."""
    lines = []
    for line in output.splitlines():
        if "/" in line and ("in /" in line or "--store" in line):
            continue
        text = re.sub(r"\b[0-9a-f]{12}\b|\b[0-9a-f]{64}\b", "ID", line)
        text = re.sub(r"[-+*]?[0-9][0-9.,]*(e[-+]?[0-9]+)?", "N", text)
        text = re.sub(r"\bN (s|min|h|d|B|kB|MB)\b", "N", text)
        text = re.sub(r"\[production\]|state pruned|\S+@\S+|█+|(\b[NX]|=)$", "", text)
        lines.append(" ".join(text.split()))
    return [line for line in lines if line]


def environment(folder: Path) -> dict[str, str]:
    """Return what commands of a session see: this Python first, a cache of their own, plain output."""
    # Where the package is not installed with its command, the source has it.
    commands = folder / "bin"
    commands.mkdir(exist_ok=True)
    for name, code in (("mvc", "-c 'from mvc_callbacks.cli import main; main()'"), ("python", "")):
        program = commands / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {code} "$@"\n', "utf-8")
        program.chmod(0o755)
    found = {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "COLUMNS": WIDTH}
    found |= {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache"), "NO_COLOR": "1"}
    found |= {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    found |= {"USER": "ada", "LOGNAME": "ada"}
    for name in ("MVC_STORE", "COV_CORE_SOURCE", "MVC_DEBUG"):
        found.pop(name, None)
    return found


def commands(session: str) -> Iterator[tuple[str, str]]:
    """Go through a session's commands and what is told of their output."""
    for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def run(document: str, folder: Path) -> Iterator[tuple[str, str, str, int]]:
    """Write a document's files and run its sessions, one command after the other.

    Args:
        document: Its text.
        folder: Where the commands run; a new one.

    Yields:
        The command, its output as the document tells it, its output now, and its exit status.
    """
    work = folder / "digits"
    work.mkdir()
    for name, text in _FILE.findall(document):
        (work / name).write_text(text, "utf-8")
    variables = environment(folder)
    for session in _SESSION.findall(document):
        for command, told in commands(session):
            ended = subprocess.run(
                ["bash", "-c", command],
                cwd=work,
                env=variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=300,
            )
            yield command, told, ended.stdout, ended.returncode


def rewritten(document: str, outputs: list[tuple[str, str]]) -> str:
    """Put outputs into a document in the place of those that it tells."""
    left = iter(outputs)

    def session(found: re.Match[str]) -> str:
        told = (f"$ {command}\n{output}" for command, output in (next(left) for _ in commands(found[1])))
        return "```console\n" + "".join(told) + "```"

    return _SESSION.sub(session, document)


def main(path: Path) -> None:
    """Write a document anew."""
    text = path.read_text("utf-8")
    with tempfile.TemporaryDirectory(prefix="mvc-tour-") as given:
        outputs = []
        for command, _, output, status in run(text, Path(given)):
            print(f"$ {command}\n{output}", end="")
            if status not in (0, 1):
                sys.exit(f"exit status {status}")
            # A name is not for everybody, and a warning's path is long.
            output = re.sub(r"/\S+/(\w+\.py:\d+: )", r"\1", re.sub(r"@\S+", "@vm", output))
            outputs.append((command, output))
        path.write_text(rewritten(text, outputs), "utf-8")
        pictures(Path(given) / "digits" / "report.html", path.parent / "pictures")


def pictures(report: Path, folder: Path) -> None:
    """Take pictures of a report: the table in the light, a comparison in the dark, curves, a phone."""
    sys.path.insert(0, str(ROOT / "tests" / "browser"))
    from browser_kit import FLAGS, chromium
    from PIL import Image
    from playwright.sync_api import sync_playwright

    folder.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        for name, scheme, width, height, part in (
            ("report-light", "light", 1180, 680, ""),
            ("report-dark", "dark", 1180, 860, "compare"),
            ("report-curves", "light", 1180, 900, "curves"),
            ("report-phone", "dark", 390, 700, ""),
        ):
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.emulate_media(reduced_motion="reduce")
            page.goto(report.as_uri())
            target = folder / f"{name}.png"
            if part == "curves":
                page.locator("#curves").screenshot(path=target)
            else:
                best = page.locator("#rows tr", has=page.locator(".badge")).get_by_role("checkbox")
                page.locator("#rows").get_by_role("checkbox").first.check()
                best.check()
                if part:
                    page.locator("#chosen").get_by_role("button", name="Compare").click()
                page.screenshot(path=target)
            page.close()
            # A page has few colours: a third of the bytes tells them.
            image = (
                Image.open(target).convert("RGB").quantize(128, method=Image.Quantize.FASTOCTREE, dither=0)
            )
            image.save(target, optimize=True)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
