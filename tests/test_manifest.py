"""The manifest: one text for a tree, one digest for a text, and no way around either."""

from __future__ import annotations

import gzip
import hashlib
import posixpath
import random
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moorline.errors import Mismatch
from moorline.manifest import (
    DIRECTORY,
    FILE,
    HEADER,
    LINK,
    Entry,
    Manifest,
    compressed,
    decompressed,
    difference,
    escape,
    how_changed,
    link_leaves,
    most_compressed,
    shown,
    unescape,
)
from trees import directory_entry, entries, file_entry, link_entry, manifests, names

SHA = hashlib.sha256(b"hi").hexdigest()
ROOT = b"d 755 0 - .\n"


def text(*lines: bytes) -> bytes:
    return HEADER + ROOT + b"".join(line + b"\n" for line in lines)


def line(path: bytes, mode: bytes = b"644") -> bytes:
    return b"f %s 2 %s %s" % (mode, SHA.encode(), path)


# -- the text -------------------------------------------------------------------------------------


def test_the_text_is_the_documented_one() -> None:
    manifest = Manifest.of(
        [
            link_entry(b"logo.png", b"img/a b"),
            file_entry(b"img/%\n\xff", b"hi"),
            directory_entry(b"img", 0o700),
            directory_entry(),
        ]
    )
    assert manifest.text == (
        b"moorline-manifest 1\n"
        b"d 755 0 - .\n"
        b"d 700 0 - img\n"
        b"f 644 2 " + SHA.encode() + b" img/%25%0A%FF\n"
        b"l 777 7 - logo.png img/a%20b\n"
    )
    assert manifest.digest == hashlib.sha256(manifest.text).hexdigest()
    assert (len(manifest.files), manifest.size_bytes) == (1, 2)


@given(manifests())
def test_any_tree_comes_back_from_its_text(manifest: Manifest) -> None:
    again = Manifest.parse(manifest.text)
    assert again == manifest
    assert again.digest == manifest.digest
    assert manifest.text.isascii()
    assert manifest.text.count(b"\n") == len(manifest.entries) + 1


@given(entries(), st.randoms(use_true_random=False))
def test_the_digest_does_not_depend_on_the_order_of_the_walk(
    tree: list[Entry], order: random.Random
) -> None:
    shuffled = tree.copy()
    order.shuffle(shuffled)
    assert Manifest.of(shuffled).text == Manifest.of(tree).text


@given(manifests(), manifests())
def test_two_trees_have_one_digest_only_when_they_are_one_tree(a: Manifest, b: Manifest) -> None:
    assert (a.digest == b.digest) == (a.entries == b.entries)


def mutations(entry: Entry) -> list[Entry]:
    """Everything that can be different about one entry, one thing at a time."""
    found = [entry._replace(mode=entry.mode ^ 1 << bit) for bit in range(9) if entry.kind != LINK]
    if entry.kind == FILE:
        flipped = f"{int(entry.digest[0], 16) ^ 1:x}" + entry.digest[1:]
        found += [entry._replace(digest=flipped), entry._replace(size=entry.size + 1)]
    if entry.kind == LINK:
        found += [link_entry(entry.path, entry.target + b"x"), file_entry(entry.path, b"")]
    if entry.path != b".":
        found.append(entry._replace(path=entry.path + b"~"))
    return found


@given(manifests(6).filter(lambda m: len(m.entries) > 1), st.data())
def test_the_digest_sees_every_byte_name_mode_and_link(
    manifest: Manifest, data: st.DataObject
) -> None:
    entry = data.draw(st.sampled_from(manifest.entries))
    children = any(e.path.startswith(entry.path + b"/") for e in manifest.entries)
    changed = data.draw(st.sampled_from(mutations(entry)))
    assume(not (children and changed.path != entry.path))
    assume(changed.path == entry.path or changed.path not in manifest.by_path)
    assume(len(changed.path.rpartition(b"/")[2]) <= 255)
    other = Manifest.of([changed if e is entry else e for e in manifest.entries])
    assert other.digest != manifest.digest
    without = [e for e in manifest.entries if e is not entry]
    if entry.path != b"." and not children:
        assert Manifest.of(without).digest != manifest.digest


@given(manifests(5), st.data())
def test_a_text_with_any_byte_changed_is_refused_or_has_another_digest(
    manifest: Manifest, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(manifest.text) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != manifest.text[at]))
    damaged = manifest.text[:at] + bytes([byte]) + manifest.text[at + 1 :]
    try:
        parsed = Manifest.parse(damaged)
    except Mismatch:
        return
    assert parsed.entries != manifest.entries
    assert parsed.digest != manifest.digest


@given(manifests(5), st.data())
def test_a_text_that_was_cut_is_never_taken_for_the_whole(
    manifest: Manifest, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(manifest.text) - 1))
    try:
        parsed = Manifest.parse(manifest.text[:cut])
    except Mismatch:
        return
    assert parsed.digest != manifest.digest


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_cleanly(raw: bytes) -> None:
    for candidate in (raw, HEADER + raw, HEADER + ROOT + raw, HEADER + ROOT + raw + b"\n"):
        try:
            parsed = Manifest.parse(candidate)
        except Mismatch:
            continue
        assert parsed.text == candidate


# -- what is refused ------------------------------------------------------------------------------

GOOD = text(line(b"a"), b"d 755 0 - b", line(b"b/c"), b"l 777 1 - d a")


def test_the_text_that_the_next_test_damages_is_good() -> None:
    assert [entry.path for entry in Manifest.parse(GOOD).entries] == [
        b".",
        b"a",
        b"b",
        b"b/c",
        b"d",
    ]


@pytest.mark.parametrize(
    "damaged",
    {
        "empty": b"",
        "only a header": HEADER,
        "no root": HEADER + line(b"a") + b"\n",
        "root is a file": HEADER + line(b".") + b"\n",
        "root twice": HEADER + ROOT + ROOT,
        "root later": text(line(b"a")) + ROOT,
        "wrong header": GOOD.replace(b"moorline-manifest 1", b"moorline-manifest 2"),
        "header of another tool": b"restic 1\n" + ROOT,
        "CRLF": GOOD.replace(b"\n", b"\r\n"),
        "CRLF in the body": GOOD.replace(b"a\n", b"a\r\n"),
        "cut in a line": GOOD[:-5],
        "no final newline": GOOD[:-1],
        "blank line at the end": GOOD + b"\n",
        "garbage at the end": GOOD + b"garbage\n",
        "garbage without newline": GOOD + b"x",
        "NUL at the end": GOOD + b"\0",
        "reordered": text(line(b"b"), line(b"a")),
        "twice": text(line(b"a"), line(b"a")),
        "file twice as directory": text(line(b"a"), b"d 755 0 - a"),
        "parent": text(line(b"..")),
        "parent inside": text(b"d 755 0 - a", line(b"a/../b")),
        "dot": text(line(b"./a")),
        "dot inside": text(b"d 755 0 - a", line(b"a/./b")),
        "absolute": text(line(b"/a")),
        "absolute twice": text(line(b"//a")),
        "slash alone": text(b"d 755 0 - /"),
        "slash at the end": text(b"d 755 0 - a", line(b"a/")),
        "double slash": text(b"d 755 0 - a", line(b"a//b")),
        "empty name": text(line(b"")),
        "escaped slash": text(line(b"a%2Fb")),
        "escaped NUL": text(line(b"a%00")),
        "escaped dots": text(line(b"%2E%2E")),
        "escaped letter": text(line(b"%41")),
        "lower-case escape": text(line(b"%ff")),
        "half an escape": text(line(b"a%2")),
        "bare percent": text(line(b"100%")),
        "raw space": text(line(b"a b")),
        "raw high byte": text(line(b"\xff")),
        "parent is missing": text(line(b"b/c")),
        "parent is a file": text(line(b"b"), line(b"b/c")),
        "parent is a link": text(b"l 777 1 - b x", line(b"b/c")),
        "parent comes later": text(line(b"b/c"), b"d 755 0 - b"),
        "name of 256 bytes": text(line(b"n" * 256)),
        "setuid": text(line(b"a", b"4755")),
        "sticky directory": text(b"d 1777 0 - a"),
        "mode is not octal": text(line(b"a", b"648")),
        "mode with a zero": text(line(b"a", b"0644")),
        "negative size": text(b"f 644 -1 %s a" % SHA.encode()),
        "size with a zero": text(b"f 644 02 %s a" % SHA.encode()),
        "size without end": text(b"f 644 %s %s a" % (b"9" * 19, SHA.encode())),
        "file without digest": text(b"f 644 2 - a"),
        "file with a target": text(line(b"a") + b" b"),
        "short digest": text(b"f 644 2 %s a" % SHA[1:].encode()),
        "upper-case digest": text(b"f 644 2 %s a" % SHA.upper().encode()),
        "directory with digest": text(b"d 755 0 %s a" % SHA.encode()),
        "directory with size": text(b"d 755 1 - a"),
        "directory with target": text(b"d 755 0 - a b"),
        "link without target": text(b"l 777 0 - a"),
        "link with mode": text(b"l 755 1 - a b"),
        "link with digest": text(b"l 777 1 %s a b" % SHA.encode()),
        "link of wrong size": text(b"l 777 2 - a b"),
        "link with NUL": text(b"l 777 1 - a %00"),
        "link that is too long": text(b"l 777 4081 - a " + b"x" * 4081),
        "unknown kind": text(b"p 644 0 - a"),
        "tab for space": text(line(b"a").replace(b" ", b"\t")),
        "two spaces": text(line(b"a").replace(b"644", b" 644")),
        "space at the end": text(line(b"a") + b" "),
    }.items(),
    ids=lambda item: item[0].replace(" ", "-"),
)
def test_a_damaged_or_hostile_text_is_refused(damaged: tuple[str, bytes]) -> None:
    with pytest.raises(Mismatch, match=r"^the manifest "):
        Manifest.parse(damaged[1])


def test_a_text_that_is_too_large_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moorline.manifest.MAX_MANIFEST_BYTES", len(GOOD) - 1)
    with pytest.raises(Mismatch, match="larger than"):
        Manifest.parse(GOOD)


@pytest.mark.parametrize("path", [b"/a", b"./a", b"a/../b", b"..", b"a//b", b"a\0", b"", b"x/y"])
def test_entries_that_are_no_tree_make_no_manifest(path: bytes) -> None:
    with pytest.raises(Mismatch):
        Manifest.of([directory_entry(), directory_entry(b"a"), file_entry(path, b"hi")])


def test_a_path_may_have_4095_bytes() -> None:
    name = b"n" * 255
    found = [directory_entry()]
    path = name
    for _ in range(15):
        found.append(directory_entry(path))
        path += b"/" + name
    assert Manifest.of([*found, file_entry(path, b"")])  # 16 * 256 - 1
    with pytest.raises(Mismatch, match="too long"):
        Manifest.of([*found, directory_entry(path), file_entry(path + b"/x", b"")])


# -- escapes --------------------------------------------------------------------------------------


@given(st.binary(max_size=60))
def test_escapes_are_printable_without_space_and_come_back(raw: bytes) -> None:
    assert unescape(escape(raw)) == raw
    assert all(0x21 <= byte <= 0x7E for byte in escape(raw))
    assert shown(raw).encode("ascii") == escape(raw)


def test_ordinary_names_are_written_as_they_are() -> None:
    name = b"img/~a-b_c.d+e,f=g@h!$&'()*;:[]{}|^`<>?\"\\#"
    assert escape(name) == name
    assert escape(b" %\x7f\n") == b"%20%25%7F%0A"


# -- links ----------------------------------------------------------------------------------------


def leaves(path: bytes, target: bytes) -> bool:
    """The same question, asked of the standard library."""
    reached = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return reached.startswith(b"/") or reached == b".." or reached.startswith(b"../")


parts = st.lists(st.sampled_from((b"..", b".", b"", b"a", b"b", b"...")), max_size=8)


@given(st.lists(names, min_size=1, max_size=4), parts)
def test_a_link_leaves_when_its_text_leads_above_the_root(
    path: list[bytes], target: list[bytes]
) -> None:
    where, to = b"/".join(path), b"/".join(target)
    assert link_leaves(where, to) == leaves(where, to)


@pytest.mark.parametrize(
    ("path", "target", "outside"),
    [
        (b"l", b"a", False),
        (b"l", b".", False),
        (b"l", b"l", False),
        (b"l", b"..", True),
        (b"d/l", b"..", False),
        (b"d/l", b"../..", True),
        (b"d/l", b"../d/../../x", True),
        (b"l", b"/etc/passwd", True),
        (b"l", b"//", True),
        (b"l", b"a/../../a", True),
        (b"l", b"...", False),
        (b"l", b"..a", False),
    ],
)
def test_links_that_leave(path: bytes, target: bytes, outside: bool) -> None:
    assert link_leaves(path, target) is outside


# -- differences ----------------------------------------------------------------------------------


@given(manifests(), manifests())
def test_the_difference_turns_one_tree_into_the_other(old: Manifest, new: Manifest) -> None:
    found = difference(old, new)
    tree = {entry.path: entry for entry in old.entries}
    for entry in found.removed:
        del tree[entry.path]
    for before, after in found.changed:
        assert tree[before.path] == before != after
        tree[after.path] = after
    for entry in found.added:
        assert entry.path not in tree
        tree[entry.path] = entry
    assert tree == new.by_path
    assert bool(found) == (old != new)
    for entries_ in (found.added, found.removed, [after for _, after in found.changed]):
        assert sorted(entries_, key=lambda e: (e.path != b".", e.path)) == list(entries_)


@given(manifests(), manifests())
def test_every_change_has_words(old: Manifest, new: Manifest) -> None:
    for before, after in difference(old, new).changed:
        assert how_changed(before, after)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (file_entry(b"a", b"x"), file_entry(b"a", b"yy"), "content (1 -> 2 bytes)"),
        (file_entry(b"a", b"x"), file_entry(b"a", b"x", 0o755), "mode (644 -> 755)"),
        (
            file_entry(b"a", b"x"),
            file_entry(b"a", b"y", 0o600),
            "content (1 -> 1 bytes), mode (644 -> 600)",
        ),
        (file_entry(b"a", b"x"), link_entry(b"a", b"b"), "file became link"),
        (link_entry(b"a", b"b"), directory_entry(b"a"), "link became directory"),
        (link_entry(b"a", b"b c"), link_entry(b"a", b"d"), "link (b%20c -> d)"),
        (directory_entry(b"a"), directory_entry(b"a", 0o700), "mode (755 -> 700)"),
        (file_entry(b"a", b"x"), file_entry(b"a", b"x"), ""),
    ],
)
def test_how_an_entry_changed(old: Entry, new: Entry, words: str) -> None:
    assert how_changed(old, new) == words


def test_a_moved_file_is_added_and_removed() -> None:
    old = Manifest.of([directory_entry(), file_entry(b"a", b"x")])
    new = Manifest.of([directory_entry(), file_entry(b"b", b"x")])
    found = difference(old, new)
    assert [e.path for e in found.added] == [b"b"]
    assert [e.path for e in found.removed] == [b"a"]
    assert not found.changed
    assert not difference(old, old)
    assert Entry(b"a", DIRECTORY, 0o755, 0).shown == "a"


def test_a_text_counts_only_with_the_digest_that_is_trusted() -> None:
    digest = hashlib.sha256(GOOD).hexdigest()
    assert Manifest.parse(GOOD, digest) == Manifest.parse(GOOD)
    assert Manifest.parse(GOOD, digest).digest == digest
    for damaged in (GOOD[:-1], GOOD + b"x\n", GOOD.replace(b"755", b"700"), b""):
        with pytest.raises(Mismatch, match="does not have the digest"):
            Manifest.parse(damaged, digest)


@pytest.mark.parametrize("path", [b"/a", b"./a", b"..", b"a//b", b"x/y"])
def test_a_trusted_digest_does_not_make_a_hostile_path_good(path: bytes) -> None:
    hostile = text(line(path))
    with pytest.raises(Mismatch, match="impossible entry"):
        Manifest.parse(hostile, hashlib.sha256(hostile).hexdigest())


# -- as it lies in a store ------------------------------------------------------------------------


@given(manifests())
def test_a_manifest_survives_being_stored_and_any_gzip_reads_it(manifest: Manifest) -> None:
    stored = compressed(manifest.text)
    assert decompressed(stored, len(manifest.text)) == manifest.text
    assert gzip.decompress(stored) == manifest.text
    assert len(stored) <= most_compressed(len(manifest.text))


@given(manifests(), st.data())
def test_a_changed_bit_is_refused_or_changes_nothing(
    manifest: Manifest, data: st.DataObject
) -> None:
    """Nothing: deflate pads its last byte with bits that say nothing."""
    stored = bytearray(compressed(manifest.text))
    bit = data.draw(st.integers(0, len(stored) * 8 - 1))
    stored[bit // 8] ^= 1 << bit % 8
    try:
        read = decompressed(bytes(stored))
    except Mismatch:
        return
    trailer_bytes = 8  # CRC-32 and length, RFC 1952
    assert bit // 8 == len(stored) - trailer_bytes - 1
    assert read == manifest.text


@pytest.mark.parametrize("spoil", [
    lambda data: data[:-1], lambda data: data + b"\0", lambda data: data * 2, lambda data: b"",
    lambda data: gzip.decompress(data), lambda data: gzip.compress(gzip.decompress(data)),
])  # fmt: skip
def test_what_is_not_exactly_one_gzip_file_of_ours_is_refused(
    spoil: Callable[[bytes], bytes],
) -> None:
    with pytest.raises(Mismatch, match="gzip"):
        decompressed(spoil(compressed(HEADER + b"d 755 0 - .\n")))


@pytest.mark.parametrize("noise", [b"", bytes(1 << 20), random.Random(1).randbytes(1 << 20)])
def test_the_length_of_any_text_is_bounded(noise: bytes) -> None:
    assert len(compressed(noise)) <= most_compressed(len(noise))


def test_a_bomb_costs_no_more_memory_than_a_manifest_may_have() -> None:
    bomb = compressed(bytes(32 << 20))
    tracemalloc.start()
    with pytest.raises(Mismatch, match="at most 1000 bytes"):
        decompressed(bomb, 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20
