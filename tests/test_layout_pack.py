"""Layout pack: few large files, an index that nobody trusts, and proofs that grow old."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from damages import becomes
from fakes import CountingDisk
from moorline.build import build_id
from moorline.disk import Disk
from moorline.errors import Mismatch
from moorline.layout import pack as pack_module
from moorline.layout.index import HEADER, Index, Place, Row, Rows, closing, opening, packs_named
from moorline.layout.pack import Packs
from moorline.layout.pack_draft import REVERIFY_S
from moorline.manifest import Entry, Manifest
from moorline.packing import MOST_PACKS, RATIO
from moorline.store import open_store
from stores import content, leftovers, make_store, packs, problems, publish
from trees import SITE, Content, write_tree

pytestmark = pytest.mark.usefixtures("no_descriptor_is_lost")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


def index_of(store: Path, id: str) -> Index:
    return Index.parse((store / "builds" / id / "index").read_bytes())


def put_index(store: Path, id: str, index: Index) -> None:
    (store / "builds" / id / "index").write_bytes(index.text)


def manifest_of(store: Path, id: str) -> Manifest:
    return Manifest.parse(gzip.decompress((store / "builds" / id / "manifest.gz").read_bytes()))


def places_of(store: Path, id: str) -> dict[str, Place]:
    return index_of(store, id).of(manifest_of(store, id).files)


def sized(digest: str, size: int) -> Entry:
    return Entry(b"f", "f", 0o644, size, digest)


def number_of(store: Path, id: str, path: bytes) -> int:
    """The row of a file."""
    return [entry.path for entry in manifest_of(store, id).files].index(path)


# -- the index ------------------------------------------------------------------------------------

tokens = st.binary(min_size=8, max_size=8).map(bytes.hex)
times = st.integers(0, 10**11 - 1)


@st.composite
def indexes(draw: st.DrawFn) -> Index:
    sizes = draw(st.dictionaries(tokens, st.integers(1, 10**12), max_size=4))
    rows = []
    for _ in range(draw(st.integers(0, 6))):
        token = draw(st.sampled_from(["", *sizes]))
        offset = draw(st.integers(0, sizes[token])) if token else 0
        rows.append(Row(token, offset, draw(times), draw(times)))
    used = {row.pack for row in rows}
    return Index({token: sizes[token] for token in sizes if token in used}, Rows.of(rows))


@given(indexes())
def test_an_index_comes_back_from_its_text(index: Index) -> None:
    assert Index.parse(index.text, len(index.rows)) == index
    assert list(Index.parse(index.text).packs) == list(index.packs)
    assert index.text.isascii()
    with pytest.raises(Mismatch):
        Index.parse(index.text, len(index.rows) + 1)


@given(indexes(), st.dictionaries(tokens, st.integers(0, 10**12), max_size=4))
def test_an_index_may_begin_with_packs_that_it_does_not_come_to_need(
    index: Index, more: dict[str, int]
) -> None:
    named = list(({token: 0 for token in index.packs} | more).items())
    text = opening(dict(named)) + closing(named, index)
    assert Index.parse(text) == index


def test_the_text_of_an_index(store: Path, site: Path) -> None:
    publish(store, site, "1")
    lines = (store / "builds/1/index").read_text().splitlines()
    ((token, size),) = packs(store).items()
    now = (store / "packs" / token).stat().st_mtime
    assert lines[:3] == ["moorline-index 1", f"pack {token} 0", f"pack {token} {size}"]
    rows = [line.split() for line in lines[3:]]
    files = manifest_of(store, "1").files
    assert len(rows) == len(files)
    for entry, (number, offset, proved, time) in zip(files, rows, strict=True):
        assert number == ("1" if entry.size else "-")
        with (store / "packs" / token).open("rb") as file:
            file.seek(int(offset))
            assert hashlib.sha256(file.read(entry.size)).hexdigest() == entry.digest
        assert abs(int(proved) - now) < 5
        assert abs(int(time) - now) < 5


PACK = b"pack 00000000000000aa 10\n"


def line(pack: str, offset: object, proved: object = 5, time: object = 6) -> bytes:
    return f"{pack} {offset} {proved} {time}\n".encode()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"moorline-index 2\n",
        HEADER[:-1],
        HEADER + PACK[:-1],
        HEADER + b"\n",
        HEADER + PACK + b"garbage\n",
        HEADER + PACK + line("0", 10**18),
        HEADER + PACK + line("0", 0, 10**11),
        HEADER + PACK + line("0", 0, 5, 10**11),
        HEADER + PACK + line("1", 0),
        HEADER + line("0", 0) + PACK,
        HEADER + line("-", -1),
        HEADER + PACK + line("-1", 0),
        HEADER + PACK + line("0", "0x1"),
        HEADER + PACK + line("0", 0)[:-1],
        HEADER + PACK + line("0", 0)[:-3] + b"\n",
        HEADER + PACK + line("0", 0).replace(b" ", b"\n"),
        HEADER + PACK + line("0", "9" * 5000),
        HEADER + b"pack ../../../../etc 10\n",
        HEADER + b"pack 00000000000000AA 10\n",
        HEADER + PACK.replace(b"\n", b"\r\n"),
    ],
)
def test_an_index_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(Mismatch, match="the build's index"):
        Index.parse(text)


def test_the_index_of_the_last_test_is_good() -> None:
    token = "00000000000000aa"
    index = Index.parse(HEADER + PACK + line("0", 0) + line("-", 0))
    assert index == Index({token: 10}, Rows.of([Row(token, 0, 5, 6), Row("", 0, 5, 6)]))
    assert Index.parse(HEADER) == Index({}, Rows.of([]))
    assert index.of([sized("a", 10), sized("b", 0)]) == {
        "a": Place(token, 0, 10, 5), "b": Place("", 0, 0, 5)
    }  # fmt: skip


def test_contents_outside_of_their_pack_are_refused_and_those_without_one_not_there() -> None:
    index = Index.parse(HEADER + PACK + line("0", 5) + line("-", 0))
    with pytest.raises(Mismatch, match="points outside"):
        index.of([sized("a", 6), sized("b", 0)])
    assert list(index.of([sized("a", 5), sized("b", 1)])) == ["a"]
    assert index.of([sized("a", 6), sized("b", 0)], wanted={"b"}).keys() == {"b"}


@given(st.binary(max_size=200))
def test_any_bytes_give_an_index_or_a_mismatch(raw: bytes) -> None:
    for text in (raw, HEADER + raw, HEADER + PACK + raw + b"\n"):
        try:
            Index.parse(text)
        except Mismatch:
            continue


INDEX_DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda p: p.write_bytes(b""),
    "cut": lambda p: os.truncate(p, p.stat().st_size - 1),
    "garbage": lambda p: p.write_bytes(p.read_bytes() + b"x\n"),
    "without contents": lambda p: p.write_bytes(HEADER),
    "a directory": lambda p: becomes(p, Path.mkdir),
    "a link": lambda p: becomes(p, lambda q: q.symlink_to("../2/index")),
    "a FIFO": lambda p: becomes(p, os.mkfifo),
}


@pytest.mark.parametrize("damage", list(INDEX_DAMAGES))
def test_a_damaged_index_is_found_and_mended(store: Path, site: Path, damage: str) -> None:
    publish(store, site, "1")
    good = content(store, "1")
    INDEX_DAMAGES[damage](store / "builds/1/index")
    assert problems(store, "1")
    with (
        open_store(Disk(), store) as opened,
        opened.open_build(build_id("1")) as build,
        pytest.raises(Mismatch),
    ):
        for _, chunks in build.reader(build.manifest()).contents(build.manifest().files):
            list(chunks)
    assert publish(store, site, "1").written.repaired
    assert problems(store, "1") == ()
    assert content(store, "1") == good
    assert leftovers(store) == []


@pytest.mark.parametrize("damage", list(INDEX_DAMAGES))
def test_a_build_after_one_with_a_damaged_index_is_whole(
    store: Path, site: Path, damage: str
) -> None:
    publish(store, site, "1")
    INDEX_DAMAGES[damage](store / "builds/1/index")
    publish(store, write_tree(site, {"index.html": b"two"}), "2")
    assert problems(store, "2") == ()


def test_an_index_that_points_at_other_bytes_is_found_and_mended(store: Path, site: Path) -> None:
    publish(store, write_tree(site, {"a": b"aaaa", "b": b"bbbb"}), "1")
    index = index_of(store, "1")
    a, b = (number_of(store, "1", path) for path in (b"a", b"b"))
    rows = list(index.rows)
    rows[a], rows[b] = rows[b], rows[a]
    put_index(store, "1", Index(index.packs, Rows.of(rows)))
    assert [p.path for p in problems(store, "1")] == ["a", "b"]
    assert all("is damaged here" in p.problem for p in problems(store, "1"))
    publish(store, site, "1")
    assert problems(store, "1") == ()


def test_an_index_that_claims_more_than_its_pack_holds(store: Path, site: Path) -> None:
    publish(store, site, "1")
    index = index_of(store, "1")
    (token,) = index.packs
    size, rows = index.packs[token] + 1000, list(index.rows)
    number = number_of(store, "1", b"index.html")
    rows[number] = rows[number]._replace(offset=size - 12)
    put_index(store, "1", Index({token: size}, Rows.of(rows)))
    assert [p.path for p in problems(store, "1")] == ["index.html"]
    publish(store, site, "2")
    assert problems(store, "2") == ()


# -- packs ----------------------------------------------------------------------------------------


def test_a_publish_writes_one_pack_and_changes_none(store: Path, site: Path) -> None:
    chance = random.Random(5)
    write_tree(site, {f"f{n}": chance.randbytes(2000) for n in range(60)})
    seen: dict[str, bytes] = {}
    for number in range(25):
        write_tree(site, {f"f{chance.randrange(60)}": chance.randbytes(2000)})
        publish(store, site, f"{number}")
        found = {p.name: p.read_bytes() for p in (store / "packs").iterdir()}
        assert len(found.keys() - seen.keys()) == 1
        assert {token: found[token] for token in seen} == seen
        seen = found
        index, manifest_files = index_of(store, f"{number}"), content(store, f"{number}")
        assert len(index.packs) <= MOST_PACKS
        live = dict.fromkeys(index.packs, 0)
        for place in places_of(store, f"{number}").values():
            if place.pack:
                live[place.pack] += place.length
        assert all(live[token] * 2 >= size for token, size in index.packs.items())
        assert len(manifest_files) == len(SITE) - 2 + 60
    assert all(problems(store, f"{number}") == () for number in range(25))


def test_equal_contents_lie_in_a_pack_once(store: Path, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "s", {f"f{n}": b"x" * 1000 for n in range(50)})
    published = publish(store, source, "1")
    assert list(packs(store).values()) == [1000]
    assert (published.written.new_files, published.written.new_bytes) == (50, 1000)


def test_the_operations_of_a_publish_do_not_grow_with_the_files_that_stay(tmp_path: Path) -> None:
    counts = []
    for number in (RATIO**2, 500):
        store = make_store(tmp_path / f"store{number}")
        spec: dict[str, Content] = {f"d{n % 9}/f{n}": b"%d" % n * 100 for n in range(number)}
        source = write_tree(tmp_path / f"s{number}", spec)
        publish(store, source, "1")
        disk = CountingDisk()
        publish(store, write_tree(source, {"d3/f3": b"new"}), "2", disk)
        counts.append(disk.count)
    assert counts[0] == counts[1] < 100


def test_many_small_contents_are_read_in_few_large_pieces(store: Path, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "s", {f"f{n}": b"%d" % n for n in range(500)})
    publish(store, source, "1")
    disk = CountingDisk()
    with open_store(disk, store) as opened, opened.open_build(build_id("1")) as build:
        manifest = build.manifest()
        before = disk.count
        assert build.verify(manifest).problems == ()
    assert disk.count - before < 10


@given(st.data())
def test_any_choice_of_contents_is_read_right(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever gaps lie between them, whatever the sizes of reads, with places that overlap too."""
    folder = tmp_path_factory.mktemp("packs")
    (folder / "packs").mkdir()
    raw = {f"{n:016x}": random.Random(n).randbytes(200) for n in range(2)}
    for token, held in raw.items():
        (folder / "packs" / token).write_bytes(held)
    wanted = []
    for number in range(data.draw(st.integers(0, 12))):
        token = data.draw(st.sampled_from(sorted(raw)))
        offset = data.draw(st.integers(0, 210))
        length = data.draw(st.integers(0, 60))
        wanted.append((Place(token, offset, length, 0), f"{number}"))
    root = os.open(folder / "packs", os.O_RDONLY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_module, "READ_BYTES", data.draw(st.integers(1, 100)))
        patch.setattr(pack_module, "GAP_BYTES", data.draw(st.integers(0, 50)))
        with Packs(CountingDisk(), root) as opened:
            found = {name: b"".join(chunks) for name, chunks in opened.contents(wanted)}
    os.close(root)
    shutil.rmtree(folder)
    for (token, offset, length, _), name in wanted:
        whole = raw[token][offset : offset + length]
        assert found[name] == (whole if len(whole) == length else b"")


def test_contents_far_apart_are_not_read_over(store: Path, tmp_path: Path) -> None:
    large = os.urandom(3 << 20)
    source = write_tree(tmp_path / "s", {"a": b"first", "b": large, "c": b"last"})
    publish(store, source, "1")

    class Weighing(Disk):
        def __init__(self) -> None:
            self.weight = 0

        def read(self, fd: int, size: int, offset: int | None = None) -> bytes:
            data = super().read(fd, size, offset)
            self.weight += len(data)
            return data

    disk = Weighing()
    with open_store(disk, store) as opened, opened.open_build(build_id("1")) as build:
        manifest = build.manifest()
        wanted = [e for e in manifest.files if e.path != b"b"]
        found = {e.shown: b"".join(c) for e, c in build.reader(manifest).contents(wanted)}
    assert found == {"a": b"first", "c": b"last"}
    assert disk.weight < 10_000


# -- who may remove packs -------------------------------------------------------------------------


def test_packs_are_named_as_used_before_they_are_looked_at(store: Path, site: Path) -> None:
    """Else somebody who removes packs could take one away between the look and the build."""
    publish(store, write_tree(site, {"large": b"L" * 50_000}), "1")
    (old,) = packs(store)

    class Watching(CountingDisk):
        def step(self, operation: str, path: str | bytes | os.PathLike[str]) -> None:
            super().step(operation, path)
            if os.fsdecode(path) == old:
                (folder,) = (store / "incoming").iterdir()
                fd = os.open(folder, os.O_RDONLY)
                seen.append(packs_named(Disk(), fd, complete=False))
                os.close(fd)

    seen: list[set[str]] = []
    publish(store, write_tree(site, {"index.html": b"two"}), "2", Watching())
    (new,) = packs(store).keys() - {old}
    assert seen
    assert all(used == {new, old} for used in seen)


ROWS = (
    b"0 5 1 1", b"1 0 1 1", b"2 7 7 7", b"- 0 1 1", b"10 1 1 1", b"7 1 1 1", b"00 1 1 1",
    b"", b"0", b" 0 1 1", b"x 1", b"12345 1 1 1", b"1  1", b"-",
)  # fmt: skip


@given(st.lists(st.sampled_from(ROWS)), st.integers(0, 12), st.booleans())
def test_whoever_removes_packs_reads_damaged_rows_too(
    rows: list[bytes], listed: int, whole: bool
) -> None:
    names = [f"{number:016x}" for number in range(listed)]
    text = opening(dict.fromkeys(names, 9)) + b"".join(row + b"\n" for row in rows)
    text = text if whole or not rows else text[:-1]
    numbers = {int(n) for n in re.findall(rb"^([0-9]{1,4}) ", b"\n".join(rows), re.MULTILINE)}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "index").write_bytes(text)
        fd = os.open(folder, os.O_RDONLY)
        try:
            if max(numbers, default=-1) < listed:
                assert packs_named(Disk(), fd, complete=True) == {names[n] for n in numbers}
            else:
                with pytest.raises(Mismatch, match="names a pack that it does not list"):
                    packs_named(Disk(), fd, complete=True)
        finally:
            os.close(fd)


def test_a_pack_that_is_missing_is_written_anew(store: Path, site: Path) -> None:
    publish(store, site, "1")
    (old,) = packs(store)
    (store / "packs" / old).unlink()
    second = publish(store, write_tree(site, {"index.html": b"two"}), "2")
    assert second.written.repaired > 0
    assert old not in packs(store)
    assert problems(store, "2") == ()


# -- proofs grow old ------------------------------------------------------------------------------


def aged(store: Path, id: str, seconds: int) -> None:
    index = index_of(store, id)
    older = [row._replace(proved=row.proved - seconds) for row in index.rows]
    put_index(store, id, Index(index.packs, Rows.of(older)))


def damage(store: Path, data: bytes) -> None:
    (token,) = packs(store)
    path = store / "packs" / token
    held = path.read_bytes()
    assert data in held
    path.write_bytes(held.replace(data, b"!" * len(data)))


LARGE: dict[str, Content] = {"large": b"L" * 50_000, "index.html": b"<h1>one</h1>"}


@pytest.mark.parametrize("seconds", [REVERIFY_S + 5, 400 * 86400, -3600])
def test_a_stale_proof_is_renewed_by_reading(store: Path, site: Path, seconds: int) -> None:
    """Older than a week, or from the future: neither is believed."""
    write_tree(site, LARGE)
    publish(store, site, "1")
    aged(store, "1", seconds)
    damage(store, b"<h1>one</h1>")
    second = publish(store, write_tree(site, {"new": b"x"}), "2")
    assert second.written.repaired == 1
    assert problems(store, "2") == ()
    assert [p.path for p in problems(store, "1")] == ["index.html"]
    proved = {row.proved for row in index_of(store, "2").rows}
    assert max(proved) - min(proved) == 0, "all of it was read, or written, just now"


def test_a_fresh_proof_is_believed_and_kept(store: Path, site: Path) -> None:
    """Else a publish would read the whole store. The damage is found when its week is over, and
    by `verify` and by each deploy at once."""
    write_tree(site, LARGE)
    publish(store, site, "1")
    aged(store, "1", REVERIFY_S - 60)
    before = places_of(store, "1")
    damage(store, b"<h1>one</h1>")
    second = publish(store, write_tree(site, {"new": b"x"}), "2")
    assert second.written.repaired == 0
    assert [p.path for p in problems(store, "2")] == ["index.html"]
    after = places_of(store, "2")
    assert all(after[digest] == place for digest, place in before.items() if place.pack)
    assert publish(store, site, "2").written.repaired == 1
    assert problems(store, "2") == ()


def test_a_content_that_moves_to_a_new_pack_is_proved_on_the_way(store: Path, site: Path) -> None:
    """Folding reads the source, not the old pack: damage is not copied."""
    publish(store, site, "1")
    damage(store, b"<h1>one</h1>")
    publish(store, write_tree(site, {"new": b"x" * 5000}), "2")
    assert len(index_of(store, "2").packs) == 1
    assert problems(store, "2") == ()
