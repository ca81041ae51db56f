"""The agent's own modules as code that need not be compiled again: found, checked, imported from.

    /var/cache/moorline/<sha256 of the agent>.<Python>

    moorline-code 1 <sha256 of the agent> <Python> <sha256 of what follows>
    <marshal of {module: (is it a package, code)}>

A zipapp of sources is compiled at every start, which took a third of a small deploy's processor.
Code cannot lie in the zipapp: a bundle pins its bytes, and each Python has other code.

What is read here runs, mostly as root, and no bundle pins it: it is believed only because nobody
but root, or the user that runs this, can have put it there. So it lies in one fixed place and never
in a target. Which folder the target is, the settings say, and a release that a build brought may
hold any file, owned by root, below that folder; /etc/moorline.toml has not been asked yet.

This is compiled at each start itself: it imports nothing of Moorline, and is short.
"""

from __future__ import annotations

import hashlib
import io
import marshal
import os
import stat
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import MAGIC_NUMBER
from types import CodeType, ModuleType
from typing import Any, Optional

PLACE = "/var/cache/moorline"
MOST_BYTES = 1 << 24

_PYTHON = f"{sys.implementation.cache_tag}-{MAGIC_NUMBER.hex()}-{sys.hexversion:x}"
_PYTHON += f"-{sys.flags.optimize}"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Modules = dict[str, tuple[bool, CodeType]]
"""By its full name, whether it is a package, and what it does when it is imported."""


class Compiled:
    """A finder and loader of modules. `new` is what would save the compiler its work next time,
    empty when it did not have to work."""

    def __init__(self, agent: bytes) -> None:
        digest = hashlib.sha256(agent).hexdigest()
        self.name = f"{digest}.{_PYTHON}"
        self.new = b""
        modules = _kept(self.name, digest)
        if modules is None:
            modules = _compile(agent)
            body = marshal.dumps(modules)
            self.new = _header(digest, body) + body
        self._modules = modules

    def find_spec(
        self, name: str, path: Optional[Sequence[str]] = None, target: Optional[ModuleType] = None
    ) -> Optional[ModuleSpec]:
        if name not in self._modules:
            return None
        # A loader by what it can do: importlib.abc would have to be imported.
        loader: Any = self
        return ModuleSpec(name, loader, is_package=self._modules[name][0])

    def create_module(self, spec: ModuleSpec) -> None:
        return None  # an ordinary one

    def exec_module(self, module: ModuleType) -> None:
        exec(self._modules[module.__name__][1], module.__dict__)


def _header(digest: str, body: bytes) -> bytes:
    found = hashlib.sha256(body).hexdigest()
    return f"moorline-code 1 {digest} {_PYTHON} {found}\n".encode()


def _kept(name: str, digest: str) -> Optional[Modules]:
    """None for whatever is missing, damaged, of another agent or Python, or could be foreign."""
    try:
        data = _read(name)
    except OSError:
        return None
    head, end, body = data.partition(b"\n")
    if head + end != _header(digest, body):  # damaged code may crash Python: so before it is read
        return None
    modules: Modules = marshal.loads(body)
    return modules


def _read(name: str) -> bytes:
    at = open_place()
    try:
        fd = os.open(name, _FILE, dir_fd=at)
    finally:
        os.close(at)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
            raise OSError(f"{PLACE}/{name} is no such file")
        _refuse_foreign(status)
        return read_whole(fd)
    finally:
        os.close(fd)


def open_place() -> int:
    """A descriptor of the folder. Raises OSError when it, or a folder on the way there, is a link
    or can be changed by others than root and the user that runs this."""
    fd = os.open("/", _FOLDER)
    try:
        for part in PLACE.strip("/").split("/"):
            _refuse_foreign(os.fstat(fd), sticky=True)
            below = os.open(part, _FOLDER, dir_fd=fd)
            os.close(fd)
            fd = below
        _refuse_foreign(os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _refuse_foreign(status: os.stat_result, *, sticky: bool = False) -> None:
    """`sticky`: on the way, a folder like /tmp does no harm, since only root and we can rename what
    is ours in there."""
    shared = status.st_mode & 0o022 and not (sticky and status.st_mode & stat.S_ISVTX)
    if status.st_uid not in (0, os.geteuid()) or shared:
        raise PermissionError("others could have written this")


def read_whole(fd: int) -> bytes:
    data = bytearray()
    while len(data) <= MOST_BYTES:
        part = os.read(fd, 1 << 20)
        if not part:
            return bytes(data)
        data += part
    raise OSError(f"larger than {MOST_BYTES} bytes")


def _compile(agent: bytes) -> Modules:
    import zipfile  # dear, and only the first start needs it

    modules: Modules = {}
    with zipfile.ZipFile(io.BytesIO(agent)) as archive:
        for path in archive.namelist():
            if path.startswith("moorline/"):
                name, is_package = _module(path)
                code = compile(archive.read(path), path, "exec", dont_inherit=True)
                modules[name] = is_package, code
    return modules


def _module(path: str) -> tuple[str, bool]:
    """moorline/layout/__init__.py is the package moorline.layout."""
    name = path[: -len(".py")].replace("/", ".")
    package = name[: -len(".__init__")]
    return (package, True) if name == f"{package}.__init__" else (name, False)
