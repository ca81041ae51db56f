"""However large, long, wide or deep a hostile input claims to be, it costs bounded memory and time.

Each test was seen to fail without its bound, and the naive way is kept where it is short.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from counts import Count
from crash.scenarios import SPECS, clean, deployed, published
from hostile.limits import MIB, Ended, limited
from moorline import releases, workflow
from moorline.bundle import read_bundle
from moorline.disk import Disk
from moorline.files import MOST_OPEN, remove_tree
from moorline.layout.index import HEADER, MAX_INDEX_BYTES, Index, packs_named
from moorline.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    compressed,
    decompressed,
    most_compressed,
)
from moorline.record import Record
from moorline.settings import parse_host_policy, parse_settings
from trees import write_tree
from world import World

DIGITS = b"%064x"
H = "0" * 64


def filled(head: bytes, line: Callable[[int], bytes], size: int) -> bytes:
    """`head`, and then lines up to `size` bytes."""
    block = b"".join(line(i) for i in range(10_000))
    times = (size - len(head)) // len(block)
    return head + block * times


def refused(ended: Ended, *errors: str) -> None:
    assert ended.error in errors, ended


MANIFESTS: dict[str, Callable[[], bytes]] = {
    "short lines": lambda: filled(
        b"moorline-manifest 1\nd 755 0 - .\n", lambda i: b"d 0 0 - a\n", MAX_MANIFEST_BYTES
    ),
    "lines that are good": lambda: b"moorline-manifest 1\nd 755 0 - .\n" + b"".join(
        b"d 0 0 - %08d\n" % i for i in range(2_000_000)
    ),
    "empty lines": lambda: b"moorline-manifest 1\n" + b"\n" * (200 * MIB),
    "one endless line": lambda: b"moorline-manifest 1\nd 755 0 - " + b"a" * (200 * MIB) + b"\n",
    "one endless line of escapes": lambda: b"moorline-manifest 1\nd 0 0 - " + b"%41" * (60 * MIB)
    + b"\n",
    "a number without end": lambda: b"moorline-manifest 1\nf 644 " + b"9" * (99 * MIB) + b" - x\n",
    "no line at all": lambda: b"m" * (200 * MIB),
    "larger than it may be": lambda: b"moorline-manifest 1\n" + b"\n" * MAX_MANIFEST_BYTES,
}  # fmt: skip
GZIPS: dict[str, Callable[[], bytes]] = {
    "zeros": lambda: compressed(b"\0" * (300 * MIB)),
    "lines": lambda: compressed(MANIFESTS["short lines"]() + b"\n" * MIB),
    "many members": lambda: compressed(b"") * MIB,
    "no end": lambda: compressed(b"\0" * (300 * MIB))[:-9],
    "more behind it": lambda: compressed(HEADER) + b"\0" * (200 * MIB),
}
INDEXES: dict[str, Callable[[], bytes]] = {
    "many packs": lambda: filled(HEADER, lambda i: b"pack %016x 9\n" % i, MAX_INDEX_BYTES),
    "many rows": lambda: filled(HEADER, lambda i: b"- %d 0 0\n" % i, MAX_INDEX_BYTES),
    "fields that are one byte": lambda: HEADER + b"0 " * (MAX_INDEX_BYTES // 2) + b"\n",
    "rows without fields": lambda: HEADER + b"   \n" * (MAX_INDEX_BYTES // 4),
    "empty lines": lambda: HEADER + b"\n" * MAX_INDEX_BYTES,
    "one endless line": lambda: HEADER + b"pack " + b"0" * MAX_INDEX_BYTES + b"\n",
    "a number without end": lambda: HEADER + b"- " + b"9" * MAX_INDEX_BYTES + b" 0 0\n",
    "two of them": lambda: HEADER + (b"- 0 " + b"9" * (MAX_INDEX_BYTES // 2) + b" 0\n") * 2,
}
JSONS: dict[str, bytes] = {
    "a deep list": b"[" * 900_000,
    "a deep object": b'{"a":' * 150_000,
    "a deep value": b'{"format":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
    "a number without end": b'{"format":' + b"9" * 1_000_000 + b"}",
    "a negative one": b'{"format":-' + b"9" * 1_000_000 + b"}",
    "a fraction": b'{"format":1.' + b"9" * 1_000_000 + b"}",
    "a power": b'{"format":1e999999999}',
    "many fields": b"{" + b",".join(b'"%d":1' % i for i in range(80_000)) + b"}",
    "one long text": b'{"format":"' + b"\\u0041" * 170_000 + b'"}',
    "too large": b'{"format":"' + b"x" * (2 << 20) + b'"}',
}
POLICIES: dict[str, bytes] = {
    "a line of blanks": b" " * 900_000 + b"x",
    "blanks in a comment": b"#" + b" " * 900_000 + b"\x01",
    "blanks before the sign": b"store" + b" " * 900_000 + b"x",
    "blanks after it": b"store =" + b" " * 900_000 + b"x",
    "a text without end": b'store = "' + b"a" * 900_000,
    "escapes without end": b'store = "' + b"\\\\" * 400_000,
    "a list without end": b"users = [" + b'"a" , ' * 150_000,
    "blanks in a list": b"users = [" + b" " * 900_000 + b"x",
    "blanks behind a value": b'store = "/a"' + b" " * 900_000 + b"x",
}


def parsed(parse: Callable[[bytes], object], make: Callable[[], bytes], mib: int) -> Ended:
    text = make()

    def call() -> object:
        parse(text)
        return "accepted"

    return limited(call, mib=mib)


@pytest.mark.slow
@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_without_end(name: str, count: Count) -> None:
    refused(parsed(Manifest.parse, MANIFESTS[name], 1280), "Mismatch")
    count.add("inputs without end")


@pytest.mark.slow
@pytest.mark.parametrize("name", GZIPS)
def test_a_gzip_bomb_in_place_of_a_manifest(name: str, count: Count) -> None:
    """By default, and where the bundle says how long the manifest is. No more is read than that."""
    refused(parsed(decompressed, GZIPS[name], 600), "Mismatch")
    short = GZIPS[name]()[: most_compressed(MIB)]
    refused(parsed(lambda data: decompressed(data, MIB), lambda: short, 16), "Mismatch")
    count.add("inputs without end", 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", INDEXES)
def test_an_index_without_end(name: str, count: Count) -> None:
    refused(parsed(Index.parse, INDEXES[name], 512), "Mismatch")
    count.add("inputs without end")


@pytest.mark.slow
@pytest.mark.parametrize("name", INDEXES)
def test_an_index_without_end_in_a_cleaner(name: str, here: Path, count: Count) -> None:
    """Which looks at packs only, so the rows may be anything."""
    (here / "index").write_bytes(INDEXES[name]())
    folder = os.open(here, os.O_RDONLY)

    def call() -> object:
        return len(packs_named(Disk(), folder, complete=False)) < 200

    ended = limited(call, mib=256)
    assert (ended.error, ended.value) == ("", True)
    os.close(folder)
    count.add("inputs without end")


@pytest.mark.parametrize("name", JSONS)
def test_a_record_without_end(name: str, count: Count) -> None:
    def parse(text: bytes) -> object:
        return Record.parse(text, "x").number("format")

    for reader in (parse, parse_settings):
        refused(parsed(reader, lambda: JSONS[name], 128), "ConfigError")
        count.add("inputs without end")


@pytest.mark.parametrize("name", POLICIES)
def test_a_host_file_without_end(name: str, count: Count) -> None:
    refused(parsed(parse_host_policy, lambda: POLICIES[name], 128), "ConfigError")
    count.add("inputs without end")


@pytest.mark.parametrize("names", [("build.json",), ("deploy.sh", "build.json"), ("x",) * 20_000])
def test_a_zip_bomb_is_not_unpacked(names: tuple[str, ...], tmp_path: Path, count: Count) -> None:
    """Of an entry no more is inflated than its limit; of names no more than a megabyte holds."""
    path = tmp_path / "x.zip"
    zeros = b"\0" * (100 << 20) if len(names) < 9 else b""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, name in enumerate(names):
            archive.writestr(name if zeros else f"{name}{number}", zeros)
    assert path.stat().st_size < 3 << 20
    del zeros
    refused(limited(lambda: read_bundle(Disk(), str(path)), mib=64), "ConfigError")
    count.add("inputs without end")


@pytest.mark.parametrize("line", [b"0 0 1 1\n", b"\n", b"0 ", b"- 0 99999999999 1\n"])
def test_an_index_without_end_is_not_read_on_a_target(
    line: bytes, here: Path, count: Count
) -> None:
    """Where memory belongs to what is served. Without it there are no contents: it is refused."""
    world = World(here)
    deployed("a", "b", live=("a",), mode="copy")(world)
    index = world.store / "builds" / "b" / "index"
    index.write_bytes(index.read_bytes() + line * (64 * MIB // len(line)))
    ended = limited(lambda: world.deploy("b", disk=Disk()).live, mib=128)
    refused(ended, "Mismatch")
    assert world.live.name == "a.1"
    count.add("inputs without end")


# -- on a disk ------------------------------------------------------------------------------------


def deepen(top: Path, levels: int, name: str = "d") -> Path:
    """Directories in each other below `top`, deeper than any path may be long; the last one."""
    fd = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    with open(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=fd), "wb") as leaf:
        leaf.write(b"leaf")
    os.close(fd)
    return top


@pytest.fixture
def deep(here: Path) -> Iterator[Path]:
    """A folder that this test's own cleaning up can remove, whatever it holds."""
    yield here
    for name in ("store", "www", "src", "doomed"):
        if (here / name).exists():
            fd = os.open(here, os.O_RDONLY)
            remove_tree(Disk(), name.encode(), fd)
            os.close(fd)


@pytest.mark.parametrize(
    "levels",
    [1, MOST_OPEN - 1, MOST_OPEN, MOST_OPEN + 1, 1000, pytest.param(5000, marks=pytest.mark.slow)],
)
def test_a_tree_of_any_depth_is_removed(levels: int, deep: Path, count: Count) -> None:
    doomed = deep / "doomed"
    for name in ("a", "b", "c"):
        (doomed / name).mkdir(parents=True)
        deepen(doomed / name, levels)

    def remove() -> None:
        fd = os.open(deep, os.O_RDONLY)
        remove_tree(Disk(), b"doomed", fd)

    ended = limited(remove, files=MOST_OPEN + 40)
    assert not ended.error, ended
    assert not doomed.exists()
    count.add("deep trees")


@pytest.mark.parametrize("layout", ["pack", "tree"])
def test_a_deep_folder_on_the_share_stops_nobody(layout: str, deep: Path, count: Count) -> None:
    """Planted wherever somebody might walk: publish, deploy, verify and clean go on."""
    world = World(deep, layout)
    deployed("a", live=("a",), mode="copy")(world)
    write_tree(deep / "src" / "b", SPECS["b"])
    for place in ("builds/a", "incoming/x.00112233445566aa", "packs/00112233445566aa",
                  "trash/x.00112233445566aa.1", "trash/y.deleting", "agent/x", "ledger/removing/x",
                  *(("builds/a/tree/img",) if layout == "tree" else ())):  # fmt: skip
        (world.store / place).mkdir(parents=True, exist_ok=True)
        deepen(world.store / place, 1500)

    def run() -> str:
        disk = Disk()
        world.publish("b", SPECS["b"])
        world.deploy("b", disk=disk)
        found = workflow.verify(config=world.config, everything=True, disk=disk)
        clean()(world, disk)
        clean(2_000_000)(world, disk)
        return " ".join(f"{p.path} {p.problem}" for one in found for p in one.problems)

    ended = limited(run)
    assert (ended.error, ended.value) == ("", "img/d extra directory" if layout == "tree" else "")
    assert os.readlink(world.root / "current").startswith("releases/b.")
    for place in ("incoming", "trash", *(["packs"] if layout == "pack" else [])):
        assert not [p for p in (world.store / place).iterdir() if (p / "d").exists()], place
    count.add("deep trees", 8)


def test_a_deep_folder_in_a_release_is_removed_with_it(deep: Path, count: Count) -> None:
    """As the application can make one that owns its release."""
    world = World(deep)
    deployed("a", "b", "c", live=("a",), mode="copy")(world)
    deepen(world.live / "img", 1500)

    def run() -> None:
        for id in ("b", "c"):
            world.deploy(id, disk=Disk())
        with world.target(Disk()) as target:
            releases.clean(target, 2)

    ended = limited(run)
    assert not ended.error, ended
    assert [name.partition(".")[0] for name in world.releases()] == ["b", "c"]
    count.add("deep trees")


def test_a_source_that_is_too_deep_is_refused_in_words(deep: Path, count: Count) -> None:
    world = World(deep)
    deepen(write_tree(deep / "src" / "a", SPECS["a"]), 1500)

    def run() -> None:
        workflow.publish(str(deep / "src" / "a"), config=world.config, id="a", disk=Disk())

    refused(limited(run, files=1024), "SourceRefused")  # what a shell gives
    count.add("deep trees")


@pytest.mark.parametrize("depth", [301, 2000])
def test_a_manifest_that_is_too_deep_is_refused(depth: int, count: Count) -> None:
    """Its directories may be on the share: a walk would hold all of them open."""
    lines = [b"d 755 0 - " + b"/".join([b"d"] * n) + b"\n" for n in range(1, depth + 2)]
    text = b"moorline-manifest 1\nd 755 0 - .\n" + b"".join(lines)
    refused(parsed(Manifest.parse, lambda: text, 64), "Mismatch")
    count.add("deep trees")


def test_a_name_of_255_bytes_in_the_trash_stops_no_cleaner(here: Path, count: Count) -> None:
    world = World(here)
    published("a")(world)
    name = "x" * (255 - 19 - 1) + ".00112233445566aa.1"
    for place in ("trash", "incoming", "packs", "builds", "ledger/removing"):
        for kind in (name[-255:], "y" * 255, ".y" * 125 + ".tmp"):
            (world.store / place).mkdir(exist_ok=True)
            (world.store / place / kind).mkdir()
    for later in (1, 2, 3):
        clean(later * 1_000_000)(world, Disk())
    assert not list((world.store / "trash").glob("x*"))
    world.deploy("a")
    count.add("long names", 15)
