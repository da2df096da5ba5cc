"""The code of a run: git's commit and patch, or the source of a class."""

from __future__ import annotations

import linecache
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mvc_callbacks import canonical, class_source, code, repository
from mvc_callbacks.patches import new_file, sections
from mvc_callbacks.repository import GitFailed, Repository


class _Git:
    """A repository to play with."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self("init", "-q", "-b", "main")

    def __call__(self, *arguments: str, text: bytes | None = None) -> str:
        identity = ["-c", "user.name=x", "-c", "user.email=x@y", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *identity, *arguments], cwd=self.root, input=text, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode("utf-8", "replace").strip()

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def commit(self) -> str:
        self("add", "-A")
        self("commit", "-q", "-m", "x")
        return self("rev-parse", "HEAD")


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Git:
    for name in [each for each in os.environ if each.startswith("GIT_")]:
        monkeypatch.delenv(name)  # set when the tests run in a hook of git
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    return _Git(tmp_path / "repo")


def _tree(root: Path) -> dict[str, tuple[bytes, bool]]:
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), os.access(path, os.X_OK))
        for path in root.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(root).parts
    }


def _applied(git: _Git, captured: code.Captured, target: Path) -> dict[str, tuple[bytes, bool]]:
    """Check the commit out elsewhere, apply the patch, and return what lies there."""
    git("worktree", "add", "-q", "--detach", str(target), captured.facts["commit"])
    if captured.patch is not None:
        subprocess.run(["git", "apply", "--whitespace=nowarn"], cwd=target, input=captured.patch, check=True)
    return _tree(target)


def test_a_clean_repository_is_told_by_its_commit(git: _Git) -> None:
    git.write("train.py", "x = 1\n")
    commit = git.commit()
    captured = code.capture(cwd=git.root)
    assert captured.patch is None
    assert captured.facts["how"] == "git"
    assert captured.facts["commit"] == commit
    assert captured.facts["branch"] == "main"
    assert captured.facts["dirty"] is False
    assert canonical.encode(captured.facts)


def test_git_apply_makes_what_ran_of_the_commit(git: _Git, tmp_path: Path) -> None:
    git.write("train.py", "a\nb\nc\n")
    git.write("gone.py", "bye\n")
    git.write("old name.py", "moved\n" * 20)
    git.write("data.bin", bytes(range(256)))
    git.write("windows.txt", b"one\r\ntwo\r\n")
    git.write("no newline.txt", "end")
    git.write("tool.sh", "#!/bin/sh\n").chmod(0o644)
    git.write("sub/staged.py", "1\n")
    git.commit()
    git.write("train.py", "a\nB\nc\n")
    (git.root / "gone.py").unlink()
    git("mv", "old name.py", "new name.py")
    git.write("data.bin", bytes(reversed(range(256))) * 9)
    git.write("windows.txt", b"one\r\nthree\r\n")
    git.write("no newline.txt", "other end")
    git.write("sub/staged.py", "2\n")
    git("add", "sub/staged.py")
    (git.root / "tool.sh").chmod(0o755)
    git.write("added.py", "untracked\nwith trailing space \n")
    git.write("empty.py", "")
    git.write("no end.py", "x")
    git.write("sub/päth.py", "umlaut: ä\n")
    git.write('we"ird\tname\\.py', "quoted\n")
    git.write("run.sh", "#!/bin/sh\n").chmod(0o755)
    git.write("crlf.py", b"a\r\nb\r\n")
    git.write("latin.txt", b"caf\xe9\n")
    git.write("looks like a patch.txt", "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n")

    captured = code.capture(cwd=git.root)

    assert captured.facts["dirty"] is True
    assert "patch_notes" not in captured.facts
    assert _applied(git, captured, tmp_path / "again") == _tree(git.root)


def test_a_name_that_is_no_utf8_is_in_the_patch(git: _Git, tmp_path: Path) -> None:
    git.write("a.py", "1\n")
    git.commit()
    try:
        (git.root / os.fsdecode(b"caf\xe9.py")).write_text("x\n")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    captured = code.capture(cwd=git.root)
    assert canonical.encode(captured.facts)
    assert _applied(git, captured, tmp_path / "again") == _tree(git.root)


@pytest.mark.parametrize(
    "setting",
    [
        "diff.noprefix=true",
        "diff.mnemonicPrefix=true",
        "color.ui=always",
        "color.diff=always",
        "diff.renames=copies",
        "diff.context=0",
        "diff.external=false",
        "core.pager=false",
        "core.quotePath=false",
        "diff.relative=true",
        "core.fsmonitor=false-and-loud",
        "diff.submodule=log",
        "diff.wsErrorHighlight=all",
    ],
)
def test_the_users_settings_do_not_spoil_the_patch(git: _Git, tmp_path: Path, setting: str) -> None:
    git.write("sub/train.py", "".join(f"line {number}\n" for number in range(30)))
    git.write("top.py", "1\n")
    git.commit()
    git.write("sub/train.py", "".join(f"line {number * (number != 15)}\n" for number in range(30)))
    git.write("top.py", "2 \n")
    git("config", *setting.split("=", 1))
    captured = code.capture(cwd=git.root / "sub")
    assert _applied(git, captured, tmp_path / "again") == _tree(git.root)


def test_no_program_that_the_repository_names_is_run(git: _Git, tmp_path: Path) -> None:
    sign = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch '{sign}'\nexit 1\n")
    program.chmod(0o755)
    git.write("a.txt", "1\n")
    git.write(".gitattributes", "*.txt diff=mine\n")
    git.commit()
    git.write("a.txt", "2\n")
    for key in ("core.fsmonitor", "diff.external", "diff.mine.command", "diff.mine.textconv", "core.pager"):
        git("config", key, str(program))
    hook = git.root / ".git/hooks/post-index-change"
    hook.parent.mkdir(exist_ok=True)
    hook.write_bytes(program.read_bytes())
    hook.chmod(0o755)
    captured = code.capture(cwd=git.root)
    assert captured.facts["how"] == "git" and captured.patch is not None
    assert not sign.exists()


def test_nothing_in_the_repository_is_written(git: _Git) -> None:
    git.write("a.py", "1\n")
    git.commit()
    git.write("a.py", "2\n")
    index = git.root / ".git/index"
    os.utime(git.root / "a.py", (1, 1))  # git would like to refresh its index
    before = (index.stat().st_mtime_ns, index.read_bytes(), sorted((git.root / ".git").iterdir()))
    code.capture(cwd=git.root)
    assert before == (index.stat().st_mtime_ns, index.read_bytes(), sorted((git.root / ".git").iterdir()))


def test_the_store_ignored_files_and_outputs_are_left_out(git: _Git) -> None:
    git.write(".gitignore", "ignored.py\n")
    git.write("model_versions/tracked.txt", "1\n")
    git.commit()
    git.write("model_versions/tracked.txt", "2\n")
    git.write("model_versions/format.json", "{}")
    git.write("ignored.py", "x")
    git.write("lightning_logs/version_0/hparams.yaml", "x")
    git.write("other_store/format.json", "{}")
    git.write("other_store/objects/ab/x.jsonl", "{}")
    captured = code.capture(cwd=git.root, exclude=[git.root / "model_versions", "/somewhere/else"])
    assert captured.patch is None
    assert captured.facts["dirty"] is False


def test_files_that_hold_secrets_are_named_and_not_kept(git: _Git) -> None:
    git.write("secrets.yaml", "old: abc\n")
    git.commit()
    git.write("secrets.yaml", "new: xyz-hidden\n")
    git.write(".env", "xyz-hidden")
    git.write("key.pem", "xyz-hidden")
    git.write("sub/api_token.txt", "xyz-hidden")
    git.write("secrets.py", "a module about secrets\n")
    captured = code.capture(cwd=git.root)
    assert captured.patch is not None and b"hidden" not in captured.patch
    assert b"a module about secrets" in captured.patch
    notes = "\n".join(captured.facts["patch_notes"])
    assert all(name in notes for name in ("secrets.yaml", ".env", "key.pem", "sub/api_token.txt"))


def test_what_is_large_binary_or_no_file_is_named_and_not_kept(git: _Git, tmp_path: Path) -> None:
    git.write("a.py", "1\n")
    git.commit()
    git.write("large.csv", "x\n" * 100_000)
    git.write("image.png", b"\x89PNG\0\0")
    (git.root / "link.py").symlink_to("/etc/passwd")
    inner = _Git(git.root / "inner")
    inner.write("b.py", "1\n")
    inner.commit()
    git.write("kept.py", "1\n")
    captured = code.capture(cwd=git.root)
    assert _applied(git, captured, tmp_path / "again").keys() == {"a.py", "kept.py"}
    notes = "\n".join(captured.facts["patch_notes"])
    assert all(name in notes for name in ("large.csv", "image.png", "link.py", "inner/"))


def test_the_patch_is_cut_between_files_and_still_applies(
    git: _Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "PATCH_LIMIT", 3000)
    for name in "abcd":
        git.write(f"{name}.py", "")
    git.commit()
    git.write("a.py", "small\n")
    git.write("b.py", "large\n" * 1000)
    git.write("c.py", "small too\n")
    git.write("new.py", "large\n" * 1000)
    captured = code.capture(cwd=git.root)
    assert captured.patch is not None and len(captured.patch) <= 3000
    again = _applied(git, captured, tmp_path / "again")
    assert again["a.py"][0] == b"small\n" and again["c.py"][0] == b"small too\n"
    assert again["b.py"][0] == b"" and "new.py" not in again
    notes = "\n".join(captured.facts["patch_notes"])
    assert "b.py" in notes and "new.py" in notes


def test_a_patch_of_git_that_is_far_too_long_is_read_in_part(
    git: _Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "_DIFF_LIMIT", 5000)
    for name in "abc":
        git.write(f"{name}.py", "")
    git.commit()
    for name in "abc":
        git.write(f"{name}.py", "x\n" * 1500)
    captured = code.capture(cwd=git.root)
    assert captured.patch is not None and len(list(sections(captured.patch))) == 1
    assert "further changes" in captured.facts["patch_notes"][0]


def test_many_untracked_files_are_kept_code_first(git: _Git, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_MOST_FILES", 2)
    monkeypatch.setattr(code, "_MOST_NAMES", 3)
    git.write("a.py", "1\n")
    git.commit()
    for number in range(9):
        git.write(f"a{number}.csv", "1\n")
    git.write("z.py", "1\n")
    captured = code.capture(cwd=git.root)
    assert captured.patch is not None and b"b/z.py" in captured.patch
    assert len(list(sections(captured.patch))) == 2
    assert captured.facts["patch_notes"][-1] == "and more that was left out"


def test_before_the_first_commit_the_patch_holds_everything(git: _Git, tmp_path: Path) -> None:
    git.write("staged.py", "1\n")
    git("add", "staged.py")
    git.write("new.py", "2\n")
    captured = code.capture(cwd=git.root)
    assert captured.facts["commit"] is None
    assert captured.facts["branch"] == "main"
    (tmp_path / "again").mkdir()
    subprocess.run(["git", "apply"], cwd=tmp_path / "again", input=captured.patch, check=True)
    assert _tree(tmp_path / "again") == _tree(git.root)


def test_a_detached_head_has_no_branch(git: _Git) -> None:
    git.write("a.py", "1\n")
    commit = git.commit()
    git("checkout", "-q", "--detach")
    facts = code.capture(cwd=git.root).facts
    assert (facts["commit"], facts["branch"]) == (commit, None)


def test_a_merge_conflict_is_told(git: _Git, tmp_path: Path) -> None:
    git.write("a.py", "1\n")
    git.commit()
    git("checkout", "-q", "-b", "other")
    git.write("a.py", "2\n")
    git.commit()
    git("checkout", "-q", "main")
    git.write("a.py", "3\n")
    git.commit()
    with pytest.raises(AssertionError):
        git("merge", "-q", "other")
    captured = code.capture(cwd=git.root)
    assert captured.facts["changed"] == ["a.py"] and captured.facts["dirty"]
    assert _applied(git, captured, tmp_path / "again") == _tree(git.root)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://me:secret@example.org/x.git", "https://***@example.org/x.git"),
        ("git@example.org:x.git", "git@example.org:x.git"),
    ],
)
def test_the_remote_is_told_without_credentials(git: _Git, url: str, told: str) -> None:
    git("remote", "add", "backup", "https://elsewhere.example/x")
    git("remote", "add", "origin", url)
    assert code.capture(cwd=git.root).facts["remote"] == told


class _Model:
    def forward(self) -> int:
        return 42


def test_outside_of_a_repository_the_source_of_the_class_is_told(tmp_path: Path) -> None:
    captured = code.capture(cwd=tmp_path, module_class=_Model)
    assert captured.facts["how"] == "source"
    assert "not a git repository" in captured.facts["why"]
    assert "return 42" in captured.facts["source"]["text"]
    assert captured.facts["source"]["class"].endswith("_Model")


def test_without_git_the_source_of_the_class_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    captured = code.capture(module_class=_Model)
    assert captured.facts["how"] == "source"
    assert "git could not be run" in captured.facts["why"]


def test_no_code_found_is_recorded_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = code.capture(cwd=tmp_path)
    assert captured.facts["how"] == "none" and captured.facts["why"] and captured.patch is None
    made: Any = type("Made", (), {"__module__": "nowhere"})
    captured = code.capture(cwd=tmp_path / "gone", module_class=made)
    assert captured.facts["how"] == "none" and "why" in captured.facts["source"]

    def fails(*_: Any) -> Any:
        raise RuntimeError("something unheard of")

    monkeypatch.setattr(code, "_capture", fails)
    assert code.capture().facts == {"how": "none", "why": "RuntimeError: something unheard of"}


def test_a_hanging_git_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\nsleep 60 &\nsleep 60\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    start = time.monotonic()
    captured = code.capture(cwd=tmp_path, seconds=0.5)
    assert time.monotonic() - start < 5
    assert captured.facts["how"] == "none" and "longer than" in captured.facts["why"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_worker_that_is_forked_while_git_is_started_keeps_nobody_waiting(
    git: _Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting, forked = threading.Event(), threading.Event()
    pipe = os.pipe

    def slow_pipe() -> tuple[int, int]:
        ends = pipe()
        if threading.current_thread() is thread:
            starting.set()
            forked.wait(1)  # so long a fork could slip in
        return ends

    worker_ends, parents_end = os.pipe()
    thread = threading.Thread(target=lambda: Repository(git.root), daemon=True)
    monkeypatch.setattr(os, "pipe", slow_pipe)
    thread.start()
    assert starting.wait(10)
    worker = os.fork()
    if worker == 0:
        os.close(parents_end)
        os.read(worker_ends, 1)  # lives until the parent lets it go
        os._exit(0)
    forked.set()
    try:
        thread.join(20)
        assert not thread.is_alive()
    finally:
        os.close(parents_end)
        os.waitpid(worker, 0)
        os.close(worker_ends)


def test_a_git_that_has_no_time_left_is_not_started(git: _Git) -> None:
    repository = Repository(git.root, seconds=5)
    repository._end = 0
    with pytest.raises(GitFailed, match="no time"):
        repository.status()


def test_the_class_leads_to_its_own_repository(git: _Git, monkeypatch: pytest.MonkeyPatch) -> None:
    git.write("its_model.py", "class Its:\n    pass\n")
    commit = git.commit()
    monkeypatch.syspath_prepend(str(git.root))
    import its_model  # type: ignore[import-not-found]

    facts = code.capture(module_class=its_model.Its).facts
    assert (facts["commit"], facts["found_by"]) == (commit, "class")
    assert "source" not in facts
    del sys.modules["its_model"]


def test_a_class_in_an_ignored_file_is_told_beside_git(git: _Git, monkeypatch: pytest.MonkeyPatch) -> None:
    git.write(".gitignore", "hidden_model.py\n")
    git.commit()
    git.write("hidden_model.py", "class Hidden:\n    size = 7\n")
    monkeypatch.syspath_prepend(str(git.root))
    import hidden_model  # type: ignore[import-not-found]

    facts = code.capture(module_class=hidden_model.Hidden).facts
    assert facts["how"] == "git" and "size = 7" in facts["source"]["text"]
    del sys.modules["hidden_model"]


def test_a_class_of_a_notebook_is_told_as_the_cell_that_defined_it(tmp_path: Path) -> None:
    pytest.importorskip("ipykernel")
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient").NotebookClient
    cells = [
        "class Base:\n    def shared(self):\n        return 'from the base'\n",
        "class Model(Base):\n    def forward(self):\n        return 'old'\n",
        "%time 1 + 1\n\nclass Model(Base):\n    def forward(self):\n        return 'new'\n",
        "class Bare(Base):\n    width = 77\n",
        "import json\nfrom mvc_callbacks import code\n"
        f"told = [code.capture(cwd={str(tmp_path)!r}, module_class=each).facts for each in (Model, Bare)]\n"
        "print(json.dumps(told))",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in cells])
    client(
        notebook, timeout=120, resources={"metadata": {"path": str(Path(__file__).parent.parent)}}
    ).execute()
    import json

    model, bare = json.loads("".join(each["text"] for each in notebook.cells[-1].outputs if "text" in each))
    assert model["how"] == "source"
    assert "'new'" in model["source"]["text"] and "from the base" in model["source"]["text"]
    assert "'old'" not in model["source"]["text"]
    assert "width = 77" in bare["source"]["text"]


def test_a_class_without_any_file_is_not_invented(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        from mvc_callbacks import code
        class Model:
            def forward(self): return 1
        print(code.capture(cwd=%r, module_class=Model).facts["how"])
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script % str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() in ("none", "source")  # since 3.13 Python keeps the text of -c


def test_long_sources_are_cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(class_source, "LARGEST", 20)
    source = class_source.tell_source(_Model())
    assert source["capped"] and len(source["text"]) == 20 and len(source["sha256"]) == 64


def test_the_script_that_was_started_leads_to_its_repository(
    git: _Git, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = git.write("train.py", "x = 1\n")
    git.commit()
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    monkeypatch.chdir(tmp_path)
    facts = code.capture().facts
    assert (facts["how"], facts["found_by"], facts["root"]) == ("git", "script", str(git.root))


@pytest.mark.parametrize(
    ("asked", "what"), [("diff", "changes of tracked files"), ("untracked", "untracked files")]
)
def test_what_git_fails_to_tell_is_named_and_the_rest_is_kept(
    asked: str, what: str, git: _Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    git.write("a.py", "1\n")
    git.commit()
    git.write("a.py", "2\n")
    git.write("new.py", "3\n")

    def fails(*_: Any, **__: Any) -> Any:
        raise GitFailed("git took longer than 0.1 seconds")

    monkeypatch.setattr(Repository, asked, fails)
    captured = code.capture(cwd=git.root)
    assert captured.facts["dirty"] and captured.facts["changed"] == ["a.py"]
    assert captured.facts["patch_notes"] == [f"{what}: left out, git took longer than 0.1 seconds"]
    assert captured.patch is not None and (b"new.py" if asked == "diff" else b"a.py") in captured.patch


def test_the_source_of_a_class_from_elsewhere_is_told_beside_the_repository(
    git: _Git, tmp_path: Path
) -> None:
    git.write("a.py", "1\n")
    git.commit()
    facts = code.capture(cwd=git.root, module_class=_Model, exclude=[git.root, tmp_path / "store"]).facts
    assert facts["how"] == "git" and "class _Model" in facts["source"]["text"]
    assert facts["untracked"] == []


def test_a_file_that_is_none_or_grows_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert new_file(tmp_path, "pipe", largest=10) == "it is no regular file"
    (tmp_path / "a.py").write_text("1234567890")
    assert isinstance(new_file(tmp_path, "a.py", largest=10), bytes)
    fstat = os.fstat

    def grown(descriptor: int) -> os.stat_result:
        seen = fstat(descriptor)
        (tmp_path / "a.py").write_text("12345678901")
        return seen

    monkeypatch.setattr(os, "fstat", grown)
    assert new_file(tmp_path, "a.py", largest=10) == "it grew while it was read"


def test_a_git_that_ended_by_itself_or_has_no_group_can_be_killed_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with monkeypatch.context() as patch:
        patch.delattr(os, "killpg")  # as on Windows
        repository._kill(process)
    assert process.wait() == -signal.SIGKILL
    repository._kill(process)  # its number may be another's by now
    gone = SimpleNamespace(pid=process.pid, returncode=None)
    assert process.stdin is not None
    process.stdin.close()
    repository._kill(gone)  # type: ignore[arg-type]


def test_git_is_asked_also_where_nobody_can_fork(git: _Git) -> None:
    git.write("a.py", "1\n")
    commit = git.commit()
    script = (
        "import os, pathlib, sys; del os.fork, os.register_at_fork; "
        "from mvc_callbacks.repository import Repository; "
        "print(Repository(pathlib.Path(sys.argv[1])).status().commit)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(git.root)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == commit


def test_of_two_classes_of_one_name_in_a_cell_the_right_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = (
        "class Model:\n    def forward(self):\n        return 'first'\n"
        "First = Model\n"
        "class Model:\n    def forward(self):\n        return 'second'\n"
    )
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(cell, "<cell 1>", "exec"), names)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    for text, told in ((cell, None), (f"{cell}%time 1\n", f"{cell}%time 1\n")):
        monkeypatch.setitem(linecache.cache, "<cell 1>", (len(text), None, text.splitlines(True), "<cell 1>"))
        for kind, word in ((names["First"], "first"), (names["Model"], "second")):
            source = class_source.tell_source(kind)
            assert source["how"] == "linecache" and word in source["text"]
            # A cell that is no Python, for a magic in it, is told whole.
            assert source["text"] == (told or source["text"]) and ("%time" in source["text"]) == bool(told)


def test_a_class_without_methods_is_told_by_the_newest_cell_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("class Bare:\n    width = 1\n", names)
    cells = ["class Bare:\n    width = 0\n", "class Bare:\n    width = 1\n", "%time Bare()\n", "Bare()\n"]
    shell = SimpleNamespace(user_ns={"In": cells})
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    for found, how in ((shell, "history"), (None, None), (SimpleNamespace(user_ns={"In": cells[2:]}), None)):
        ipython = SimpleNamespace(get_ipython=lambda found=found: found)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        source = class_source.tell_source(names["Bare"])
        assert source.get("how") == how
        assert how is None or source["text"] == "class Bare:\n    width = 1\n"
