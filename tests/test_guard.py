"""Work on the share in a child that can be left behind."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest

from fakes import CountingDisk
from moorline import guard
from moorline.disk import Disk
from moorline.errors import Error, Mismatch, Problem, ShareDead
from moorline.guard import guarded
from moorline.progress import Progress, no_progress

SHARE = "/mnt/share"


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def open_files() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_is_left() -> object:
    """After each test: no child, no open file."""
    before = children(), len(open_files())
    yield
    assert (children(), len(open_files())) == before


def run(work: object, stall_s: float = 30, progress: Progress = no_progress) -> object:
    return guarded(Disk(), work, stall_s=stall_s, where=SHARE, progress=progress)  # type: ignore[arg-type]


def test_the_result_comes_back_from_another_process() -> None:
    assert run(lambda progress: {"a": [1, None, b"x"]}) == {"a": [1, None, b"x"]}
    assert run(lambda progress: os.getpid()) != os.getpid()


def test_a_large_result_comes_back_whole() -> None:
    assert run(lambda progress: b"x" * 5_000_000) == b"x" * 5_000_000


def test_nothing_that_the_child_does_happens_here() -> None:
    happened: list[int] = []
    run(lambda progress: happened.append(1))
    assert happened == []


def test_an_error_is_raised_here_with_all_that_it_says() -> None:
    def work(progress: Progress) -> None:
        raise Mismatch("not right.", problems=[Problem("a", "b")], live="x")

    with pytest.raises(Mismatch, match=r"not right\.") as caught:
        run(work)
    assert caught.value.problems == (Problem("a", "b"),)
    assert (caught.value.live, caught.value.exit_code) == ("x", 3)


def test_an_error_of_the_disk_keeps_its_code_and_path() -> None:
    def work(progress: Progress) -> None:
        raise OSError(errno.ESTALE, "Stale file handle", "/mnt/share/x")

    with pytest.raises(OSError, match="Stale") as caught:
        run(work)
    assert (caught.value.errno, caught.value.filename) == (errno.ESTALE, "/mnt/share/x")


def test_any_other_exception_is_an_error_and_not_a_silent_end() -> None:
    with pytest.raises(Error, match=r"ZeroDivisionError: .*by zero"):
        run(lambda progress: 1 // 0)


def test_a_child_that_is_killed_is_an_error() -> None:
    with pytest.raises(Error, match="ended early"):
        run(lambda progress: os.kill(os.getpid(), signal.SIGKILL))


def hang(progress: Progress) -> None:
    receive, _send = os.pipe()
    os.read(receive, 1)


def test_work_that_hangs_is_left_behind_within_its_limit() -> None:
    with pytest.raises(ShareDead, match=r"did not answer for 0\.2 s: /mnt/share") as caught:
        run(hang, stall_s=0.2)
    assert caught.value.exit_code == 1


def test_work_that_hangs_deaf_to_signals_is_killed() -> None:
    def work(progress: Progress) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        hang(progress)

    with pytest.raises(ShareDead):
        run(work, stall_s=0.2)


def test_a_child_that_cannot_even_be_killed_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In D state on a hard mount: here it merely is not sent the signal."""
    kept: list[int] = []
    real = os.kill
    monkeypatch.setattr("moorline.guard.os.kill", lambda pid, number: kept.append(pid))
    monkeypatch.setattr(guard, "_LAST_WORD_S", 0.1)
    with pytest.raises(ShareDead):
        run(hang, stall_s=0.1)

    (pid,) = kept
    real(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[0] == pid


def test_progress_is_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_BEAT_S", 0.0)
    seen: list[tuple[int, int, str]] = []

    def work(progress: Progress) -> str:
        for number in range(8):
            time.sleep(0.1)  # in all longer than the limit: what is tested is that it is no limit
            progress(number, 8, "reading")
        return "done"

    def note(done: int, total: int, what: str, files: int = 0, /) -> None:
        seen.append((done, total, what))

    assert run(work, stall_s=0.6, progress=note) == "done"
    assert seen == [(number, 8, "reading") for number in range(8)]


def test_not_every_step_is_told() -> None:
    told: list[int] = []

    def work(progress: Progress) -> None:
        for number in range(100_000):
            progress(number, 100_000, "reading")

    run(work, progress=lambda *call: told.append(call[0]))
    assert 1 <= len(told) < 1000


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_here_ends_the_child() -> None:
    def work(progress: Progress) -> None:
        progress(1, 2, "hanging")
        hang(progress)

    def interrupted(done: int, total: int, what: str, files: int = 0, /) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(work, progress=interrupted)


def test_an_interrupt_of_both_says_nothing_twice(capfd: pytest.CaptureFixture[str]) -> None:
    def work(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Error, match="ended early"):
        run(work)
    assert capfd.readouterr() == ("", "")


def test_what_the_child_inherited_unwritten_is_not_written_twice(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        file.write("once\n")
        run(lambda progress: None)
    assert (tmp_path / "log").read_text() == "once\n"


def test_a_disk_that_does_not_fork_does_it_here() -> None:
    pid = guarded(
        CountingDisk(), lambda progress: os.getpid(), stall_s=1, where=SHARE, progress=no_progress
    )
    assert pid == os.getpid()
