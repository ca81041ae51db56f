"""Code that the agent keeps for its next start: used when it is whole and ours, else made anew."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import CountingDisk, FailingDisk
from moorline import compiled
from moorline.compiled import Compiled
from moorline.disk import Disk
from moorline.keeping import MOST_FILES, keep
from test_agent import PYTHONS, interpreter
from world import NOBODY, World
from zipapps import private_agent


def zipapp(modules: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("__main__.py", "no code")
        for name, text in modules.items():
            archive.writestr(f"moorline/{name}.py", text)
    return out.getvalue()


AGENT = zipapp({"a": "x = 1", "b/__init__": "", "b/c": "x = 2"})
OTHER = zipapp({"a": "x = 3"})


@pytest.fixture
def place(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = here / "kept"
    monkeypatch.setattr(compiled, "PLACE", str(place))
    return place


def kept(place: Path, agent: bytes = AGENT) -> Path:
    """The file that a first start leaves."""
    first = Compiled(agent)
    assert first.new
    keep(CountingDisk(), first.name, first.new)
    return place / first.name


def compiles(agent: bytes = AGENT) -> bool:
    """Whether a start compiles. It has the right modules in any case."""
    found = Compiled(agent)
    assert value(found, "moorline.a") == (1 if agent == AGENT else 3)
    return bool(found.new)


def value(found: Compiled, name: str) -> object:
    held: dict[str, object] = {}
    exec(found._modules[name][1], held)
    return held["x"]


def test_a_second_start_compiles_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(place)
    monkeypatch.delattr(compiled, "_compile")

    again = Compiled(AGENT)

    assert (again.new, value(again, "moorline.a")) == (b"", 1)
    assert again.find_spec("moorline.x") is None
    assert again.find_spec("json") is None
    package, module = again.find_spec("moorline.b"), again.find_spec("moorline.b.c")
    assert package is not None and package.submodule_search_locations is not None
    assert module is not None and module.submodule_search_locations is None


def test_nothing_is_kept_by_reading(place: Path) -> None:
    assert compiles()
    assert not place.exists()


def test_another_agent_has_other_code(place: Path) -> None:
    path = kept(place)
    assert compiles(OTHER)
    path.rename(place / Compiled(OTHER).name)
    assert compiles(OTHER)
    assert compiles()


def test_another_python_has_other_code(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kept(place)
    monkeypatch.setattr(compiled, "_PYTHON", "cpython-999-00-0-0")
    assert compiles()
    path.rename(place / Compiled(AGENT).name)
    assert compiles()


@pytest.mark.parametrize("bit", [1, 128])
def test_a_flipped_bit_anywhere_is_found(place: Path, bit: int) -> None:
    path = kept(place)
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
        assert Compiled(AGENT).new, f"byte {at} of {len(data)}"
    path.write_bytes(data)
    assert not compiles()


def test_a_file_cut_anywhere_or_grown_is_found(place: Path) -> None:
    path = kept(place)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert Compiled(AGENT).new, f"{length} bytes of {len(data)}"
    for more in (b"\0", data, data[data.index(b"\n") :]):
        path.write_bytes(data + more)
        assert Compiled(AGENT).new
    with path.open("wb") as file:
        file.truncate(compiled.MOST_BYTES + 1)
    assert compiles()


def test_what_was_damaged_is_written_again(place: Path) -> None:
    path = kept(place)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert kept(place).read_bytes() == data
    path.unlink()
    (path / "full").mkdir(parents=True)
    assert kept(place).read_bytes() == data
    assert os.listdir(place) == [path.name]
    assert not compiles()


# -- whose it is ----------------------------------------------------------------------------------


def chmod(mode: int) -> Callable[[Path], None]:
    return lambda path: path.chmod(mode)


def give_away(path: Path) -> None:
    os.chown(path, NOBODY, -1)


def behind_a_link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to(path.with_name("real"))


WAYS = {
    "another user's": give_away, "group-writable": chmod(0o775), "world-writable": chmod(0o757),
    "a link": behind_a_link,
}  # fmt: skip


@pytest.mark.parametrize("depth", [0, 1, 2], ids=["file", "folder", "folder above"])
@pytest.mark.parametrize("way", WAYS)
def test_what_others_could_write_is_not_used(
    way: str, depth: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = here / "above" / "kept"
    place.parent.mkdir()
    monkeypatch.setattr(compiled, "PLACE", str(place))
    path = kept(place)
    WAYS[way]([path, place, place.parent][depth])

    assert compiles()
    first = Compiled(AGENT)
    if depth:  # nothing is written there either
        with pytest.raises(OSError):
            keep(CountingDisk(), first.name, first.new)
    else:
        keep(CountingDisk(), first.name, first.new)
        assert not compiles()
        assert path.lstat().st_uid == os.geteuid() and stat.S_ISREG(path.lstat().st_mode)


def test_a_folder_like_tmp_on_the_way_does_no_harm(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others make names in it, but cannot rename what is ours; as the last one it would."""
    above = here / "above"
    above.mkdir()
    above.chmod(0o1777)
    monkeypatch.setattr(compiled, "PLACE", str(above / "kept"))
    kept(above / "kept")
    assert not compiles()
    (above / "kept").chmod(0o1777)
    assert compiles()


@pytest.mark.parametrize("kind", ["a FIFO", "a folder", "a socket"])
def test_what_is_no_file_is_not_read(kind: str, place: Path) -> None:
    path = kept(place)
    path.unlink()
    {"a FIFO": os.mkfifo, "a folder": os.mkdir,
     "a socket": lambda p: os.mknod(p, 0o644 | stat.S_IFSOCK)}[kind](path)  # fmt: skip
    assert compiles()


# -- keeping --------------------------------------------------------------------------------------


def test_the_newest_files_stay(place: Path) -> None:
    """Several targets share the place, with their agents; a dead run's half file goes as well."""
    for number in range(MOST_FILES + 3):
        keep(CountingDisk(), f"{number:02}", b"x")
        os.utime(place / f"{number:02}", (number, number))
    (place / ".x.tmp").write_bytes(b"")
    os.utime(place / ".x.tmp", (1, 1))

    keep(CountingDisk(), "new", b"x")

    last = [f"{number:02}" for number in range(MOST_FILES + 3)][1 - MOST_FILES :]
    assert sorted(os.listdir(place)) == sorted([*last, "new"])


@pytest.mark.parametrize("operation", ["create", "write", "close", "rename"])
def test_a_full_disk_holds_no_half_file(place: Path, operation: str) -> None:
    path = kept(place)
    data = path.read_bytes()
    disk = FailingDisk(0, operation=operation)

    with pytest.raises(OSError):
        keep(disk, path.name, b"new")

    assert disk.fired
    assert (os.listdir(place), path.read_bytes()) == ([path.name], data)


# -- the agent itself -----------------------------------------------------------------------------

PROBE = """
import os, runpy, sys
compiled, leave = set(), os._exit
def tell(code):
    print(*sorted(name for name in compiled if "moorline/" in name), flush=True)
    leave(code)
os._exit = tell
sys.addaudithook(lambda event, found: event == "compile" and compiled.add(str(found[1])))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def started(python: str, agent: Path, *words: str, **environment: str) -> str:
    """What the agent said."""
    done = subprocess.run(
        [python, "-I", "-W", "error", *words], env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def placed(world: World) -> World:
    world.publish("a")
    (world.here / "agent.pyz").write_bytes(private_agent(world.here / "code"))
    return world


def deploy(world: World) -> list[str]:
    file, store = str(world.here / "agent.pyz"), str(world.store)
    return [file, "deploy", world.bundle("a"), store, "--target", str(world.root)]


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="audit hooks")
def test_an_agent_compiles_only_what_it_starts_with(placed: World) -> None:
    agent = placed.here / "agent.pyz"
    first = started(sys.executable, agent, "-c", PROBE, *deploy(placed)).splitlines()
    again = started(sys.executable, agent, "-c", PROBE, *deploy(placed)).splitlines()

    assert first[0] == again[0] == f"a is live on {placed.root}"
    names = ["__init__", "compiled", "startup"]
    assert again[1].split() == [f"{agent}/moorline/{name}.py" for name in names]
    assert "moorline/agent.py" in first[1].split()


@pytest.mark.parametrize("version", PYTHONS)
def test_each_python_keeps_and_uses_its_own(placed: World, version: str) -> None:
    python = interpreter(version)
    if not python:
        pytest.skip(f"no {version} here")
    started(python, placed.here, *deploy(placed))
    (path,) = (placed.here / "code").iterdir()
    before = path.stat()  # of which only the time of access may change
    started(python, placed.here, *deploy(placed))
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (
        before.st_ino, before.st_mtime_ns, before.st_size
    )  # fmt: skip
    path.write_bytes(path.read_bytes()[:-1])
    started(python, placed.here, *deploy(placed))
    assert path.stat().st_size == before.st_size
    assert [p.name for p in (placed.here / "code").iterdir()] == [path.name]


def test_a_place_that_cannot_be_written_does_not_matter(placed: World) -> None:
    (placed.here / "code").write_bytes(b"no folder")
    assert started(sys.executable, placed.here, *deploy(placed)).startswith("a is live")
    assert (placed.here / "code").read_bytes() == b"no folder"


def test_only_a_run_that_succeeded_keeps_something(placed: World) -> None:
    file = str(placed.here / "agent.pyz")
    for words in (["--version"], ["status", "--target", "/nowhere"]):
        subprocess.run([sys.executable, "-I", file, *words], env={}, capture_output=True)
    assert not (placed.here / "code").exists()
    started(sys.executable, placed.here, *deploy(placed), PYTHONDONTWRITEBYTECODE="1")
    assert not (placed.here / "code").exists()
    started(sys.executable, placed.here, *deploy(placed))
    assert (placed.here / "code").exists()


def test_real_disks_work_too(place: Path) -> None:
    first = Compiled(AGENT)
    keep(Disk(), first.name, first.new)
    assert not compiles()
    assert stat.S_IMODE(place.stat().st_mode) & 0o022 == 0
