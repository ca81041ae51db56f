"""A mount namespace of its own. It lives as long as one process in it, which ends with this one, so
nothing stays mounted however a test ends.

with Namespace() as space:
    space.tmpfs(path, "4M")
    space.run("moorline", "publish", ...)
    space.see(path)                       the same path, seen from outside
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LIMIT_S = 60
FUSE_SHARE = Path(__file__).resolve().parent.parent / "nfs" / "fuse_share.py"


class Namespace:
    def __enter__(self) -> Namespace:
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"\n", "no mount namespace"
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.communicate(timeout=LIMIT_S)

    def start(self, *words: object, **options: Any) -> subprocess.Popen[str]:
        inside = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", *map(str, words)]
        return subprocess.Popen(
            inside, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True, **options,
        )  # fmt: skip

    def run(self, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """The output is read to its end: so nobody keeps it open for longer than the limit."""
        process = self.start(*words, **options)
        try:
            out, err = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess([*map(str, words)], process.returncode, out, err)

    def do(self, *words: object) -> str:
        done = self.run(*words)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def see(self, path: Path) -> Path:
        return Path(f"/proc/{self._holder.pid}/root{path}")

    # -- mounts -------------------------------------------------------------------------------

    def tmpfs(self, path: Path, size: str) -> None:
        self.do("mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "none", path)

    def grow(self, path: Path, size: str) -> None:
        self.do("mount", "-o", f"remount,size={size}", path)

    def ext4(self, image: Path, path: Path, size_bytes: int = 0) -> None:
        """Mount the image; make it first when its size is given."""
        if size_bytes:
            with image.open("wb") as file:
                file.truncate(size_bytes)
            self.do("mkfs.ext4", "-q", "-m", "0", image)
        self.do("mount", "-o", "loop,errors=remount-ro", image, path)

    def unmount(self, path: Path) -> None:
        self.do("umount", path)

    @contextlib.contextmanager
    def fuse(self, backing: Path, path: Path) -> Iterator[subprocess.Popen[str]]:
        """A share that another process serves: stop it, and the share is frozen; kill it, and the
        share is gone."""
        server = self.start(sys.executable, FUSE_SHARE, backing, path)
        try:
            deadline = time.monotonic() + LIMIT_S
            while f" {path} " not in Path(f"/proc/{self._holder.pid}/mountinfo").read_text():
                assert server.poll() is None, server.communicate()
                assert time.monotonic() < deadline, "no FUSE mount"
                time.sleep(0.01)
            yield server
        finally:
            server.kill()
            server.communicate()
            self.run("umount", "-l", path)
