"""Everything that reads bytes which somebody else may have written, and what it may answer.

A parser either raises one of its documented errors, or what it returns is safe to use: paths stay
below their root, names are names, texts can be handed to the system, and what was read once is read
again from its own text.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from fakes import CountingDisk
from moorline import wanted
from moorline.build import Build, Pin, Release, TargetRecord, build_id
from moorline.bundle import Bundle, read_bundle
from moorline.bundling import zip_bytes
from moorline.config import parse_config
from moorline.errors import ConfigError, Mismatch, NotFound
from moorline.history import Deploying
from moorline.layout.draft import kept_times, read_base
from moorline.layout.index import HEADER, NO_PACK, Index, packs_named
from moorline.ledger.directory import DirectoryLedger
from moorline.lines import file_lines
from moorline.manifest import STORED, Manifest, compressed, decompressed
from moorline.record import record_text
from moorline.settings import HostPolicy, Settings, parse_host_policy, parse_settings
from moorline.store import open_store
from moorline.target import open_target
from trees import SITE
from world import B, World

HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Parser:
    """`read` gets hostile bytes; `good` are its valid inputs, `errors` what it may raise."""

    name: str
    good: tuple[bytes, ...]
    read: Callable[[bytes], object]
    errors: tuple[type[Exception], ...] = (ConfigError,)
    corpus: tuple[bytes, ...] = field(default=())

    def try_(self, text: bytes) -> bool:
        """Whether it was accepted. Raises for everything that must not happen."""
        try:
            self.read(text)
        except self.errors:
            return False
        return True


# -- what an accepted value has to be --------------------------------------------------------------


def usable(value: Any) -> None:
    """Every text in it can be a name or an argument of the system."""
    if isinstance(value, str):
        assert b"\0" not in os.fsencode(value)
    elif isinstance(value, dict):
        usable(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            usable(each)
    elif hasattr(value, "__dataclass_fields__"):
        for each in fields(value):
            usable(getattr(value, each.name))


def plain(name: str) -> None:
    assert name and "/" not in name and name not in (".", "..") and not name.startswith(".")


def manifest(text: bytes) -> Manifest:
    found = Manifest.parse(text)
    assert found.text == text
    folders = {b"."}
    for entry in found.entries[1:]:
        parts = entry.path.split(b"/")
        assert not {b"", b".", b".."} & set(parts) and b"\0" not in entry.path
        assert (b"/".join(parts[:-1]) or b".") in folders
        if entry.kind == "d":
            folders.add(entry.path)
    return found


def index(text: bytes) -> Index:
    """A cleaner, which reads nothing but the first field of each row, sees the same packs."""
    found = Index.parse(text)
    assert all(re.fullmatch("[0-9a-f]{16}", token) for token in found.packs)
    assert {row.pack for row in found.rows} - {NO_PACK} == set(found.packs)
    for row in found.rows:
        assert 0 <= row.offset < 10**18 and 0 <= row.proved < 10**11 and 0 <= row.time < 10**11
    assert Index.parse(found.text, len(found.rows)) == found
    files = Manifest.parse(samples()["manifest"][0]).files
    with contextlib.suppress(Mismatch):
        for place in found.of(files).values():
            size = found.packs[place.pack] if place.pack else 0
            assert not place.length or place.offset + place.length <= size
    path = folder() / "of a build"
    path.mkdir(exist_ok=True)
    (path / "index").write_bytes(text)
    with opened(path) as fd:
        assert packs_named(CountingDisk(), fd, complete=True) == set(found.packs)
        assert packs_named(CountingDisk(), fd, complete=False) >= set(found.packs)
    return found


def base(text: bytes) -> None:
    """The newest build's manifest, whose digest the share itself vouches for: whatever it says, a
    publish takes over only what it has itself, line by line."""
    path = folder() / "newest"
    path.mkdir(exist_ok=True)
    (path / os.fsdecode(STORED)).write_bytes(compressed(text))
    row = b"0 0 7 8\n"
    (path / "index").write_bytes(
        HEADER + b"pack %b 99999999\n" % (b"0" * 16) + row * text.count(b"\nf ")
    )
    good = Manifest.parse(samples()["manifest"][0])
    with opened(path) as fd:
        found = read_base(CountingDisk(), fd, hashlib.sha256(text).hexdigest())
    held = dict(found.places({entry.digest: entry for entry in good.files}))
    times = kept_times(good, found)
    lines = text.split(b"\n")
    for entry, line in zip(good.files, file_lines(good.text), strict=True):
        assert entry.path not in times or (line in lines and times[entry.path] == 8)
    assert all(place.length + place.offset <= 99_999_999 for place in held.values())


def packed_manifest(data: bytes) -> None:
    text = decompressed(data, 1 << 20)
    assert len(text) <= 1 << 20
    assert decompressed(compressed(text)) == text
    with contextlib.suppress(Mismatch):
        manifest(text)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def record(kind: Any) -> Callable[[bytes], object]:
    """A record comes back from its own text, and its texts are usable."""

    def read(text: bytes) -> object:
        found = kind.parse(text, "a record")
        usable(found)
        assert kind.parse(found.text(), "again") == found
        for name in ("id", "current", "previous", "deploying"):
            if getattr(found, name, None) and kind is not Deploying:
                build_id(getattr(found, name))
        for row in (found, getattr(found, "release", None)):
            if isinstance(row, Release):
                release(row)
        return found

    return read


def release(row: Release) -> None:
    """Where it lies is where a release may lie; what it names are digests."""
    assert all(HEX.fullmatch(name) for name in (row.digest, row.settings, row.agent) if name)
    assert ".." not in row.place.split("/")
    assert row.place.startswith(("releases/", "/")) or not row.place


def settings(text: bytes) -> Settings:
    found = parse_settings(text)
    usable(found)
    assert parse_settings(found.text) == found
    for name in found.groups:
        found.for_group(name)
    for path in found.linked:
        assert not path.startswith("/") and ".." not in path.split("/")
    return found


def host(text: bytes) -> HostPolicy:
    """Whatever is accepted means the same to every other reader of TOML."""
    found = parse_host_policy(text)
    usable(found)
    read = tomllib.loads(text.decode())
    assert found.store == read.get("store", "").rstrip("/")
    for name in ("roots", "users", "modes"):
        assert list(getattr(found, name)) == read.get(name, [])
    return found


def config(text: bytes) -> None:
    found = parse_config(text)
    usable((found.app, found.store, found.exclude, found.settings))
    excluded = found.excluded()
    assert excluded is None or excluded("a/b c", False) in (True, False)


# -- what is read from files -----------------------------------------------------------------------


@cache
def folder() -> Path:
    """One folder for all files of this process, removed with it."""
    made = tempfile.TemporaryDirectory(prefix="moorline-hostile-")
    _KEPT.append(made)
    return Path(made.name)


_KEPT: list[Any] = []


@cache
def world() -> World:
    """A store with two builds and a target that serves the second one."""
    made = World(folder())
    with mock.patch.object(wanted, "HOST_FILE", str(folder() / "no-host-file")):
        made.publish("a", SITE, hooks={"check": [{"run": ["true"]}]})
        made.publish("b", B)
        made.deploy("a")
        made.deploy("b")
    return made


def bundle(name: str) -> Callable[[bytes], object]:
    """A bundle with one file replaced, or the whole zip."""

    def read(text: bytes) -> Bundle:
        path = folder() / name
        if name.endswith(".zip"):
            path.write_bytes(text)
        else:
            path.mkdir(exist_ok=True)
            for file in ("appspec.yml", "deploy.sh", "build.json"):
                (path / file).write_bytes(
                    text if file == name else (Path(world().bundle("a")) / file).read_bytes()
                )
        found = read_bundle(CountingDisk(), str(path))
        usable(found)
        build_id(found.id)
        assert all(HEX.fullmatch(x) for x in (found.digest, found.settings, found.agent))
        return found

    return read


def marker(text: bytes) -> None:
    path = folder() / "marked"
    path.mkdir(exist_ok=True)
    (path / "moorline-store.json").write_bytes(text)
    with open_store(CountingDisk(), path) as store:
        usable((store.app, store.id, store.layout))


def ticket(text: bytes) -> None:
    (world().store / "sequence" / "7").write_bytes(text)
    with open_store(CountingDisk(), world().store) as store:
        found = store.read_ticket(7)
        numbers = store.tickets()
    assert found is None or (build_id(found.id) and found.sequence == 7)
    assert numbers[0] == 7


def target_file(name: str) -> Callable[[bytes], object]:
    """A file in .moorline, and everything that a target says of itself then."""

    def read(text: bytes) -> None:
        path = world().inner / name
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(text)
        try:
            with open_target(CountingDisk(), str(world().root)) as target:
                plain(target.identity())
                rows = target.history()
                for row in rows:
                    release(row)
                usable(rows)
                target.live(rows)
                target.next_number(rows)
                usable(target.deploying())
        finally:
            if before is None:
                path.unlink()
            else:
                path.write_bytes(before)

    return read


def ledger(folder_name: str, read_all: Callable[[DirectoryLedger], object]) -> Any:
    def read(text: bytes) -> None:
        path = world().store / "ledger" / folder_name / "hostile.json"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text)
        try:
            with open_store(CountingDisk(), world().store) as store:
                usable(read_all(DirectoryLedger(store.disk, store.root)))
        finally:
            path.unlink()

    return read


# -- the table -------------------------------------------------------------------------------------


@cache
def samples() -> dict[str, tuple[bytes, ...]]:
    """Valid inputs of every kind, as the program itself made them."""
    store, inner = world().store, world().inner
    bundle_folder = Path(world().bundle("a"))
    files = {p.name: p.read_bytes() for p in bundle_folder.iterdir()}
    rows = (inner / "history.jsonl").read_bytes()
    row = Release.parse(rows.splitlines()[0], "row")
    deploying = Deploying("d-1", "QA", row, "releases/a.1", "prepared", 1_700_000_000)
    found = {
        name: tuple(sorted(p.read_bytes() for p in store.glob(pattern)))
        for name, pattern in (
            ("index", "builds/*/index"), ("build", "builds/*/build.json"),
            ("settings", "settings/*"), ("ticket", "sequence/[12]"), ("marker", "*.json"),
            ("ledger-target", "ledger/targets/*"),
        )
    }  # fmt: skip
    with open_store(CountingDisk(), store) as open_:
        manifests = [open_.open_build(id).manifest().text for id in sorted(open_.ids())]
    pin = Pin(build_id("a"), "the audit", "somebody", 1_700_000_000)
    return {
        **found,
        "manifest": tuple(manifests),
        "row": tuple(rows.splitlines()),
        "history": (rows,),
        "deploying": (deploying.text(),),
        "target": ((inner / "target.json").read_bytes(),),
        "pin": (pin.text(),),
        "build.json": (files["build.json"],),
        "deploy.sh": (files["deploy.sh"],),
        "zip": (zip_bytes(files),),
        "settings": (*found["settings"], FULL_SETTINGS),
        "host": HOSTS,
        "config": CONFIGS,
    }


FULL_SETTINGS = record_text(
    {
        "format": 1, "app": "shop", "store_id": "0" * 16,
        "target": {"root": "/srv/www", "store": "/mnt/s", "mode": "copy", "owner": "www-data",
                   "keep_releases": 4, "linked": ["a/b/", ".env"], "store_wait_s": 3},
        "hooks": {"before_switch": [{"run": ["./bin/x", "y"], "user": "www-data"}],
                  "check": [{"url": "http://127.0.0.1/", "contains": "ok", "timeout_s": 3}]},
        "groups": {"PROD": {"mode": "link", "hooks": {"check": [{"run": ["true"]}]}}},
    }
)  # fmt: skip
HOSTS = (
    b'# ours\nstore = "/mnt/store"\nroots = ["/srv", "/var/www"]\nusers = [ "www-data" ]\n',
    b'modes=["copy"]\r\n\r\n# \\u0041\r\nstore\t=\t"/mnt/\\u0041"\n',
)
CONFIGS = (
    b'app = "shop"\n[store]\npath = "/mnt/store"\n[publish]\nexclude = ["*.map", "!a", "/x/**"]\n'
    b'allow = [".env"]\nallow_external_links = true\n[target]\nroot = "/srv/www"\nmode = "link"\n'
    b'linked = ["uploads/"]\n[[hooks.check]]\nurl = "http://127.0.0.1/"\ntimeout_s = 5\n'
    b'[groups.PROD]\nkeep_releases = 5\n[[groups.PROD.hooks.after_switch]]\nrun = ["true"]\n',
)


FILES = (ConfigError, OSError)  # the verbs translate an error of the disk, such as "too large"


def parsers() -> Iterator[Parser]:
    good = samples()
    yield Parser("manifest", good["manifest"], manifest, (Mismatch,))
    packed = tuple(map(compressed, good["manifest"]))
    yield Parser("manifest.gz", packed, packed_manifest, (Mismatch,))
    yield Parser("index", good["index"], index, (Mismatch,))
    yield Parser("base", good["manifest"], base, (Mismatch, OSError))
    for name, kind in (("build", Build), ("row", Release), ("deploying", Deploying),
                       ("pin", Pin), ("ledger-target", TargetRecord)):  # fmt: skip
        yield Parser(name, good[name], record(kind))
    yield Parser("settings", good["settings"], settings)
    yield Parser("host", good["host"], host)
    yield Parser("config", good["config"], config)
    yield Parser("marker", good["marker"], marker, FILES)
    yield Parser("ticket", good["ticket"], ticket, ())
    yield Parser("bundle-build.json", good["build.json"], bundle("build.json"))
    yield Parser("bundle-deploy.sh", good["deploy.sh"], bundle("deploy.sh"))
    yield Parser("bundle-zip", good["zip"], bundle("x.zip"), (ConfigError, NotFound))
    for file, sample in (("history.jsonl", "history"), ("deploying.json", "deploying"),
                         ("target.json", "target")):  # fmt: skip
        yield Parser(f"target-{file}", good[sample], target_file(file), (OSError,))
    yield Parser("ledger-targets", good["ledger-target"],
                 ledger("targets", lambda it: it.targets()), FILES)  # fmt: skip
    yield Parser("ledger-builds", good["build"], ledger("builds", lambda it: it.builds()), FILES)
    yield Parser("ledger-pins", good["pin"], ledger("pins", lambda it: it.pins()), FILES)


NAMES = (
    "manifest", "manifest.gz", "index", "base", "build", "row", "deploying", "pin", "ledger-target",
    "settings",
    "host", "config", "marker", "ticket", "bundle-build.json", "bundle-deploy.sh", "bundle-zip",
    "target-history.jsonl", "target-deploying.json", "target-target.json", "ledger-targets",
    "ledger-builds", "ledger-pins",
)  # fmt: skip
