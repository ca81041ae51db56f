"""Run the hooks of a target: programs with argument lists, and checks that ask a URL.

A hook never gets a shell, a terminal, standard input, or more environment than it needs. It has a
time limit for its whole process group, and what it prints is bounded: the last part is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moorline.disk import DAMAGE, Descent, Disk
from moorline.errors import ConfigError, HookFailed, Mismatch
from moorline.files import read_file, write_file
from moorline.guard import guarded
from moorline.manifest import FILE, Entry, Manifest, shown
from moorline.progress import no_progress
from moorline.settings import Hook

TAIL_BYTES = 4096
TERMINATE_S = 5.0
_ENTER = ("/bin/sh", "-c", 'cd "$0" && exec "$@"')
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Moment:
    """What hooks are told: the build, the one before, where the release lies, and why."""

    id: str
    previous: str
    release: str
    stage: str
    reason: str
    manifest: Manifest
    private_copy: bool  # the release lies on the share: run a verified copy of its programs
    variables: Mapping[str, str] = field(default_factory=dict)

    def environment(self, home: str, user: str) -> dict[str, str]:
        return {
            **self.variables,
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "HOME": home,
            "USER": user,
            "MOORLINE_ID": self.id,
            "MOORLINE_PREVIOUS": self.previous,
            "MOORLINE_RELEASE": self.release,
            "MOORLINE_STAGE": self.stage,
            "MOORLINE_REASON": self.reason,
        }


def run_hook(disk: Disk, hook: Hook, moment: Moment, name: str) -> None:
    """Run one hook, with its retries. Raises HookFailed with the end of what it printed."""
    failure = ""
    for attempt in range(hook.retries + 1):
        if attempt:
            time.sleep(hook.retry_wait_s)
        failure = _asked(hook) if hook.url else _run(disk, hook, moment)
        if not failure:
            return
    times = f" ({hook.retries + 1} times)" if hook.retries else ""
    raise HookFailed(f"{name} hook failed{times}: {hook.shown}: {failure}")


def _asked(hook: Hook) -> str:
    from moorline.asking import ask  # see there: it is dear, and seldom needed

    return ask(hook)


# -- programs -------------------------------------------------------------------------------------


def _run(disk: Disk, hook: Hook, moment: Moment) -> str:
    """Empty when the program ended with 0, else what went wrong."""
    user = hook_user(hook.user)
    with tempfile.TemporaryDirectory(prefix="moorline-hook-") as private:
        words, folder = list(hook.run), moment.release
        if words[0].startswith("./"):
            words[0] = _program(disk, hook, moment, private, user)
        if moment.private_copy:  # a dead share may hold the program, which has a limit, not us
            words, folder = [*_ENTER, folder, *words], "/"
        try:
            child = subprocess.Popen(
                words,
                cwd=folder,
                env=moment.environment(user.pw_dir, user.pw_name),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **_identity(hook.user, user),
            )
        except (OSError, subprocess.SubprocessError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            return f"cannot be run: {reason}"
        return _watch(child, hook.timeout_s)


def hook_user(name: str) -> pwd.struct_passwd:
    """Whom a hook runs as that names `name`; the deploying user where it names nobody."""
    try:
        found = pwd.getpwnam(name) if name else pwd.getpwuid(os.geteuid())
    except KeyError:
        if not name:
            return pwd.struct_passwd(("", "x", os.geteuid(), os.getegid(), "", "/", "/bin/sh"))
        raise ConfigError(f"no user {name!r} on this host: a hook wants to run as that.") from None
    if name and os.geteuid() != 0 and found.pw_uid != os.geteuid():
        raise ConfigError(f"a hook wants to run as {name!r}: only root can do that.")
    return found


def _identity(name: str, user: pwd.struct_passwd) -> dict[str, Any]:
    if not name or os.geteuid() != 0:
        return {}
    groups = os.getgrouplist(name, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": groups}


def _program(disk: Disk, hook: Hook, moment: Moment, private: str, user: pwd.struct_passwd) -> str:
    """The file of the build that a hook runs; a private copy that was verified, where somebody
    could have changed it: on the share, or in a release that belongs to another user."""
    path = hook.run[0][2:]
    entry = moment.manifest.by_path.get(os.fsencode(os.path.normpath(path)))
    if entry is None or entry.kind != FILE:
        raise ConfigError(
            f"the build has no file {shown(os.fsencode(path))}: a hook wants to run it."
        )
    if not moment.private_copy and _unchanged(disk, moment, user):
        return os.path.join(moment.release, os.fsdecode(entry.path))
    data = guarded(
        disk, lambda _: _content(disk, moment.release, entry), stall_s=hook.timeout_s,
        where=moment.release, progress=no_progress,
    )  # fmt: skip
    copy = os.path.join(private, "program")
    if hashlib.sha256(data).hexdigest() != entry.digest:
        raise Mismatch(
            f"the hook's program {entry.shown} was changed in {moment.release}. It was not run."
        )
    write_file(disk, copy, data, mode=0o700)
    if os.geteuid() == 0:
        for name in (private, copy):
            disk.set_owner(name, user.pw_uid, user.pw_gid)
    return copy


def _content(disk: Disk, release: str, entry: Entry) -> bytes:
    """What the release has there now, whatever that is: not through a link, nor without end."""
    directory, _, name = entry.path.rpartition(b"/")
    try:
        with Descent(disk, release) as descent:
            return read_file(disk, name, descent.enter(directory or b"."), most=entry.size)
    except OSError as error:
        if error.errno not in DAMAGE:
            raise
        return b""


def _unchanged(disk: Disk, moment: Moment, user: pwd.struct_passwd) -> bool:
    """Whether only the deploying user, or who the hook runs as, can write the release."""
    return disk.stat(moment.release).st_uid in (os.geteuid(), user.pw_uid)


def _watch(child: subprocess.Popen[bytes], timeout_s: int) -> str:
    """Read the output until the program ends; end its whole group when the time is up.

    A grandchild may keep the pipe open: nobody waits for that.
    """
    deadline, tail = time.monotonic() + timeout_s, b""
    output = child.stdout
    assert output is not None
    os.set_blocking(output.fileno(), False)
    with selectors.DefaultSelector() as selector, output:
        selector.register(output, selectors.EVENT_READ)
        open_, late = True, True
        try:
            while child.poll() is None and time.monotonic() < deadline:
                if not open_:
                    time.sleep(0.01)
                elif selector.select(0.05):
                    data = os.read(output.fileno(), 1 << 16)
                    open_ = bool(data)
                    tail = (tail + data)[-TAIL_BYTES:]
                    if not open_:
                        selector.unregister(output)
            late = child.poll() is None
        finally:  # interrupted or late, nothing of the hook goes on
            if late:
                _end_group(child)
        tail = (tail + _rest(output.fileno()))[-TAIL_BYTES:]
    said = _text(tail)
    if late:
        return f"did not end within {timeout_s} s{said}"
    if child.returncode < 0:
        return f"was killed by {_signal_name(-child.returncode)}{said}"
    return f"ended with {child.returncode}{said}" if child.returncode else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have none
        return f"signal {number}"


def _rest(fd: int) -> bytes:
    """What is in the pipe now, a bounded part of it."""
    data = b""
    for _ in range(16):
        try:
            part = os.read(fd, 1 << 16)
        except BlockingIOError:
            break
        if not part:
            break
        data = (data + part)[-TAIL_BYTES:]
    return data


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """Ask the program and all that it started to end, then make them: one that ignores SIGTERM must
    not outlive the first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(TERMINATE_S)


def _text(tail: bytes) -> str:
    text = tail.decode("utf-8", "replace").strip()
    return f". It printed: {text}" if text else ""
