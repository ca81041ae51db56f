"""All contents of a build in packs: what is damaged is named, however the work is shared out."""

from __future__ import annotations

import errno
import hashlib
import marshal
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import CountingDisk
from moorline.build import build_id
from moorline.disk import AnyPath, Disk
from moorline.hashing import MOST_MESSAGE
from moorline.layout import pack_check
from moorline.layout.index import INDEX_DAMAGED, Index, Row, Rows
from moorline.layout.pack_check import (
    GAP_BYTES,
    READ_BYTES,
    RUN_BYTES,
    RUN_CONTENTS,
    PackVerifier,
    runs,
)
from moorline.manifest import Entry, Manifest
from moorline.progress import no_progress
from moorline.store import open_store
from moorline.verifying import Verified
from stores import make_store, packs, publish
from trees import write_tree
from ways import WAYS, always

pytestmark = [
    pytest.mark.usefixtures("no_descriptor_is_lost"),
    # The test runner has threads of its own; what is forked here runs only the job.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

FILES = 60
PER_FILE = 50


def body(number: int) -> bytes:
    return b"%050d" % number


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way of sharing out, in runs of a few contents and reads that end within them."""
    name: str = request.param
    monkeypatch.setattr(pack_check, "workers", always(name))
    monkeypatch.setattr(pack_check, "RUN_BYTES", 7 * PER_FILE)
    monkeypatch.setattr(pack_check, "READ_BYTES", 3 * PER_FILE - 20)
    return name


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store whose build "2" lies in two packs, the first of FILES contents, the second of 3."""
    store = make_store(tmp_path / "store")
    source = write_tree(tmp_path / "s", {f"f{n:03}": body(n) for n in range(FILES)})
    publish(store, source, "1")
    publish(store, write_tree(source, {f"g{n}": body(1000 + n) for n in range(3)}), "2")
    assert sorted(packs(store).values()) == [3 * PER_FILE, FILES * PER_FILE]
    return store


def verified(store: Path, disk: Disk | None = None) -> Verified:
    with (
        open_store(disk or Disk(), store) as opened,
        opened.open_build(build_id("2")) as build,
    ):
        return build.verify(build.manifest())


def pack_of(store: Path, *, large: bool) -> Path:
    sizes = packs(store)
    return store / "packs" / (max if large else min)(sizes, key=sizes.__getitem__)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_what_is_right_has_no_problems(store: Path, way: str) -> None:
    found = verified(store)
    assert found == Verified((), FILES + 3, (FILES + 3) * PER_FILE)


@pytest.mark.parametrize("byte", [0, PER_FILE - 1])
def test_a_bit_anywhere_is_found_and_only_there(store: Path, way: str, byte: int) -> None:
    """In the first and the last content of each run, and everywhere between."""
    pack = pack_of(store, large=True)
    for number in range(FILES):
        flip(pack, number * PER_FILE + byte)
        expected = ((f"f{number:03}", f"pack {pack.name} is damaged here"),)
        assert verified(store).problems == expected
        flip(pack, number * PER_FILE + byte)


def test_damage_in_several_packs(store: Path, way: str) -> None:
    first, second = pack_of(store, large=True), pack_of(store, large=False)
    flip(first, FILES * PER_FILE - 1)
    flip(second, 0)
    assert verified(store).problems == (
        (f"f{FILES - 1:03}", f"pack {first.name} is damaged here"),
        ("g0", f"pack {second.name} is damaged here"),
    )


def test_a_pack_that_is_cut_off_lacks_its_end(store: Path, way: str) -> None:
    pack = pack_of(store, large=True)
    os.truncate(pack, 41 * PER_FILE + 1)
    assert [p.path for p in verified(store).problems] == [f"f{n:03}" for n in range(41, FILES)]


@pytest.mark.parametrize("instead", [Path.mkdir, os.mkfifo, lambda p: p.symlink_to("/etc/passwd"),
                                     lambda p: None])  # fmt: skip
def test_a_pack_that_is_none(store: Path, way: str, instead: object) -> None:
    pack = pack_of(store, large=True)
    pack.unlink()
    instead(pack)  # type: ignore[operator]  # one of those above
    assert verified(store).problems == tuple(
        (f"f{n:03}", f"pack {pack.name} is missing") for n in range(FILES)
    )


class Cutting(Disk):
    """Somebody cuts a pack off after it was opened."""

    def __init__(self, pack: Path) -> None:
        self.pack = pack

    def read_into(self, fd: int, buffer: memoryview, offset: int | None = None) -> int:
        os.truncate(self.pack, 10 * PER_FILE)
        return super().read_into(fd, buffer, offset)


def test_a_pack_that_is_cut_off_under_the_worker(store: Path, way: str) -> None:
    found = verified(store, Cutting(pack_of(store, large=True)))
    assert [p.path for p in found.problems] == [f"f{n:03}" for n in range(10, FILES)]


class Failing(Disk):
    """One operation on packs fails; whoever does it."""

    def __init__(self, operation: str, code: int) -> None:
        self.operation = operation
        self.code = code

    def step(self, operation: str, path: AnyPath) -> None:
        if operation == self.operation and os.fsdecode(path).isalnum():
            raise OSError(self.code, os.strerror(self.code), os.fsdecode(path))


@pytest.mark.parametrize("operation", ["open_file", "read_into"])
@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_an_error_of_the_disk_is_no_damage(
    store: Path, way: str, operation: str, code: int
) -> None:  # fmt: skip
    with pytest.raises(OSError) as caught:
        verified(store, Failing(operation, code))
    assert caught.value.errno == code


def test_an_index_that_says_nothing_of_a_content(store: Path, way: str) -> None:
    path = store / "builds/2/index"
    index = Index.parse(path.read_bytes())
    rows = list(index.rows)
    rows[5] = Row("", 0, rows[5].proved, rows[5].time)
    path.write_bytes(Index(index.packs, Rows.of(rows)).text)
    assert verified(store).problems == (("f005", "missing from the build's index"),)
    rows[5] = rows[6]._replace(offset=10**17)
    path.write_bytes(Index(index.packs, Rows.of(rows)).text)
    assert verified(store).problems == ((".", INDEX_DAMAGED),)


def test_an_empty_file_needs_no_pack_but_its_digest(tmp_path: Path, way: str) -> None:
    empty, other = hashlib.sha256().hexdigest(), hashlib.sha256(b"x").hexdigest()
    root = Entry(b".", "d", 0o755, 0)
    manifest = Manifest.of([root, *(Entry(n, "f", 0o644, 0, d) for n, d in
                                    ((b"a", empty), (b"b", other)))])  # fmt: skip
    rows = Rows.of([Row("", 0, 0, 0), Row("", 0, 0, 0)])
    fd = os.open(tmp_path, os.O_RDONLY)
    verifier = PackVerifier(Disk(), fd, lambda _: Index({}, rows), files=2, size_bytes=0)
    assert [p.path for p in verifier.verify(manifest, no_progress).problems] == ["b"]
    verifier.close()
    os.close(fd)


def test_progress_counts_contents_and_bytes_up_to_all(store: Path, way: str) -> None:
    said: list[tuple[int, int, str, int]] = []
    with open_store(Disk(), store) as opened, opened.open_build(build_id("2")) as build:
        build.verify(build.manifest(), lambda *now: said.append(now))
    assert len(said) > FILES // 7
    assert said == sorted(said)
    total = (FILES + 3) * PER_FILE
    assert said[-1] == (total, total, "verifying", FILES + 3)


# -- what is read ---------------------------------------------------------------------------------


class Weighing(Disk):
    """What is opened and read of packs, in this process."""

    forks = False

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []
        self.opened: list[str] = []

    def open_file(self, path: AnyPath, at: int | None = None) -> tuple[int, os.stat_result]:
        self.opened.append(os.fsdecode(path))
        return super().open_file(path, at)

    def read_into(self, fd: int, buffer: memoryview, offset: int | None = None) -> int:
        size = super().read_into(fd, buffer, offset)
        self.reads.append((offset or 0, size))
        return size


def test_each_pack_is_opened_once_and_read_once_in_large_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_check, "workers", always("inline"))
    size = 3 * RUN_BYTES // 20
    store = make_store(tmp_path / "store")
    source = write_tree(tmp_path / "s", {f"f{n:02}": os.urandom(size) for n in range(20)})
    publish(store, source, "2")
    disk = Weighing()
    assert verified(store, disk).problems == ()
    assert sum(length for _, length in disk.reads) == 20 * size, "nothing twice"
    assert len(disk.reads) <= 20 * size // READ_BYTES + 5
    assert [disk.opened.count(token) for token in packs(store)] == [1]


def test_what_the_build_does_not_need_is_not_read_over(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    large = os.urandom(2 * GAP_BYTES)
    publish(store, write_tree(tmp_path / "s", {"a": b"a", "b": large, "c": b"c"}), "1")
    index = Index.parse((store / "builds/1/index").read_bytes())
    root = Entry(b".", "d", 0o755, 0)
    digests = {name: hashlib.sha256(name).hexdigest() for name in (b"a", b"c")}
    manifest = Manifest.of([root, *(Entry(n, "f", 0o644, 1, d) for n, d in digests.items())])
    rows = Rows.of([row for number, row in enumerate(index.rows) if number != 1])
    disk = Weighing()
    fd = os.open(store / "packs", os.O_RDONLY)
    verifier = PackVerifier(disk, fd, lambda _: Index(index.packs, rows), files=2, size_bytes=2)
    assert verifier.verify(manifest, no_progress) == Verified((), 2, 2)
    verifier.close()
    os.close(fd)
    assert [size for _, size in disk.reads] == [1, 1]


class Short(Disk):
    """Some file systems give less than was asked for."""

    def read_into(self, fd: int, buffer: memoryview, offset: int | None = None) -> int:
        return super().read_into(fd, buffer[:7], offset)


def chosen(data: st.DataObject, raw: dict[str, bytes]) -> Iterator[tuple[Entry, Row, bool]]:
    """Files that lie anywhere, over each other too, and whether they are what they should be."""
    for number in range(data.draw(st.integers(0, 12))):
        token = data.draw(st.sampled_from(sorted(raw)))
        offset = data.draw(st.integers(0, 210))
        length = data.draw(st.integers(1, 60))
        whole = raw[token][offset : offset + length]
        right = len(whole) == length and data.draw(st.booleans())
        digest = hashlib.sha256(whole if right else b"%d" % number).hexdigest()
        entry = Entry(b"%02d" % number, "f", 0o644, length, digest)
        yield entry, Row(token, offset, 0, 0), right


@given(st.data())
def test_any_choice_of_contents_is_judged_right(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("packs")
    raw = {f"{n:016x}": data.draw(st.binary(min_size=200, max_size=200)) for n in range(2)}
    for token, held in raw.items():
        (folder / token).write_bytes(held)
    wanted = list(chosen(data, raw))
    manifest = Manifest.of([Entry(b".", "d", 0o755, 0), *(entry for entry, _, _ in wanted)])
    index = Index(dict.fromkeys(raw, 300), Rows.of(row for _, row, _ in wanted))
    disk = data.draw(st.sampled_from([CountingDisk(), Short()]))
    most = [data.draw(st.integers(least, 100)) for least in (1, 1, 0)]
    fd = os.open(folder, os.O_RDONLY)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in zip(("READ_BYTES", "RUN_BYTES", "GAP_BYTES"), most, strict=True):
            patch.setattr(pack_check, name, value)
        verifier = PackVerifier(disk, fd, lambda _: index, files=1, size_bytes=1)
        found = verifier.verify(manifest, no_progress)
        verifier.close()
    os.close(fd)
    shutil.rmtree(folder)
    good = {entry.digest for entry, _, right in wanted if right}
    bad = [entry.shown for entry, _, _ in wanted if entry.digest not in good]
    assert [problem.path for problem in found.problems] == bad


@given(st.data())
def test_runs_hold_every_content_once_and_fit_into_a_message(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 2 * RUN_BYTES), max_size=30))
    sizes += [10] * data.draw(st.sampled_from([0, 3 * RUN_CONTENTS]))
    files = [Entry(b"%d" % n, "f", 0o644, size, f"{n:064x}") for n, size in enumerate(sizes)]
    gap = data.draw(st.sampled_from([0, GAP_BYTES, GAP_BYTES + 1]))
    rows, offset = [], 10**17
    for size in sizes:
        pack = data.draw(st.sampled_from("ab")) if size > 10 else "c"
        rows.append(Row(pack * 16, offset, 0, 0))
        offset += size + gap
    found = list(runs(files, Rows.of(rows), range(len(files))))
    spans = [(pack, *span) for pack, run in found for span in run]
    expected = [(row.pack if entry.size else "", row.offset, entry.size, entry.digest)
                for row, entry in zip(rows, files, strict=True)]  # fmt: skip
    assert sorted(spans) == sorted(expected)
    for pack, run in found:
        assert run == sorted(run)
        assert 0 < len(run) <= RUN_CONTENTS
        length = run[-1][0] + run[-1][1] - run[0][0]
        assert length <= RUN_BYTES or len(run) == 1 or not pack
        assert len(marshal.dumps((10**9, (pack, run)))) < MOST_MESSAGE
