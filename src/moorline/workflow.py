"""START HERE: the verbs about one store or target, each a few calls of the modules below.

A verb takes plain values, returns a frozen result and raises `moorline.errors.Error`. It prints
nothing; long ones report through `progress`. What only some verbs need they import themselves: a
small publish takes less time than the import of what a deploy needs.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from moorline import __version__
from moorline.build import Build, Pin, Release, TargetRecord, build_id
from moorline.config import CONFIG_NAME, Config, default_id, new_config_text
from moorline.disk import Disk
from moorline.errors import ConfigError, Conflict, NotFound, translated
from moorline.files import write_file
from moorline.history import previous_of
from moorline.layout.index import read_index
from moorline.ledger.directory import DirectoryLedger
from moorline.manifest import MAX_MANIFEST_BYTES, Difference, difference
from moorline.progress import Progress, no_progress
from moorline.results import (
    BuildLine,
    DeployResult,
    ExportResult,
    InitResult,
    PublishResult,
    ShowResult,
    VerifyResult,
    build_line,
    published,
    would_go_live,
)  # fmt: skip
from moorline.settings import Hook
from moorline.store import OpenBuild, Store, open_store
from moorline.target import Target, open_target

if TYPE_CHECKING:
    from moorline.scan import Outline, Rules
    from moorline.wanted import Wanted

DISK = Disk()


# -- stores and builds ----------------------------------------------------------------------------


def init(
    path: str, *, app: str, layout: str = "pack", folder: str = ".", disk: Disk = DISK
) -> InitResult:
    """Make a store at `path` and a commented moorline.toml in `folder`; both only when missing."""
    from moorline.founding import init_store

    with translated("init"), init_store(disk, path, app=app, layout=layout) as store:
        config = os.path.join(folder, CONFIG_NAME)
        text = new_config_text(app, os.path.abspath(path), layout).encode()
        try:
            write_file(disk, config, text)
            written = True
        except FileExistsError:
            written = False
        return InitResult(os.path.abspath(path), store.id, store.app, store.layout, config, written)


def publish(
    source: str, *, config: Config, id: str | None = None, bundle: str | None = None,
    progress: Progress = no_progress, dry_run: bool = False, disk: Disk = DISK,
    environment: Mapping[str, str] = os.environ,
) -> PublishResult:  # fmt: skip
    """Store the directory `source` as a build, and write its bundle.

    Without `id` the name comes from CodeBuild's variables in `environment`, else from time and
    content. With `dry_run` nothing is written: the result tells id, digest and size.
    """
    from moorline.bundling import write_bundle
    from moorline.layout.draft import Written
    from moorline.pinned import NO_DIGEST, Pinned
    from moorline.publishing import Publisher
    from moorline.scan import scan

    started = time.monotonic()
    with (
        translated("publish"),
        _open(disk, config) as store,
        Publisher(store, progress) as publisher,
    ):
        given = None if id is None else build_id(id)

        def meanwhile(outline: Outline, beat: Callable[[], None]) -> None:
            pinned = Pinned.of(config, store, outline.replaced)
            trial = given or build_id(default_id(environment, NO_DIGEST, disk.now()))
            pinned.bundle_files(trial, NO_DIGEST, MAX_MANIFEST_BYTES, bundle)
            if not dry_run:
                pinned.complete(store)
                publisher.begin(given, outline.directories, beat)

        scanned = scan(disk, source, _rules(config, store), progress, meanwhile=meanwhile)
        digest, pinned = scanned.manifest.digest, Pinned.of(config, store, scanned.replaced)
        name = given or build_id(default_id(environment, digest, disk.now()))
        files = pinned.bundle_files(name, digest, len(scanned.manifest.text), bundle)
        if dry_run:
            return published(name, scanned, Written(0, 0, 0), False, None, 0, started)
        revision = environment.get("CODEBUILD_RESOLVED_SOURCE_VERSION", "")
        done = publisher.publish(scanned, name, revision=revision, tool=f"moorline {__version__}")
        if done.already:  # then what is damaged is mended, all of it
            pinned.mend(store)
            _remember(DirectoryLedger(disk, store.root), done.build)
        size = write_bundle(disk, bundle, files) if bundle and files else 0
        return published(name, scanned, done.written, done.already, bundle, size, started)


def builds(config: Config, *, disk: Disk = DISK) -> tuple[BuildLine, ...]:
    """Every build of the store and every build that the ledger remembers, newest first."""
    with translated("builds"), _open(disk, config) as store:
        ledger = DirectoryLedger(disk, store.root)
        present = {build.id: build for build in store.builds()}
        known = {build.id: build for build in ledger.builds()}
        targets, pins = ledger.targets(), ledger.pins()
    every = sorted({**known, **present}.values(), key=lambda build: -build.sequence)
    return tuple(build_line(build, build.id in present, targets, pins) for build in every)


def show(id: str, *, config: Config, disk: Disk = DISK) -> ShowResult:
    """One build in detail."""
    with translated("show"), _open(disk, config) as store, _build(store, id) as opened:
        ledger = DirectoryLedger(disk, store.root)
        manifest = opened.manifest()
        packs: tuple[tuple[str, int], ...] = ()
        if store.layout == "pack":
            packs = tuple(read_index(disk, opened.folder, len(manifest.files)).packs.items())
        line = build_line(opened.build, True, ledger.targets(), ledger.pins())
        return ShowResult(line, manifest, opened.path, packs)


def diff(a: str, b: str, *, config: Config, disk: Disk = DISK) -> Difference:
    """What changed from build `a` to build `b`."""
    with translated("diff"), _open(disk, config) as store:
        first, second = _build(store, a), _build(store, b)
        with first, second:
            return difference(first.manifest(), second.manifest())


def export(
    id: str, directory: str, *, config: Config, progress: Progress = no_progress, disk: Disk = DISK
) -> ExportResult:
    """A plain folder of any build, every byte verified. `directory` must not exist yet."""
    from moorline.exporting import write_export

    started = time.monotonic()
    above, name = os.path.split(os.path.abspath(directory))
    with translated("export"), _open(disk, config) as store, _build(store, id) as opened:
        manifest = opened.manifest()
        if os.path.lexists(directory):
            raise ConfigError(f"{directory} exists. Name a new folder for the export.")
        parent = disk.open_directory(above)
        try:
            write_export(disk, opened, manifest, parent, os.fsencode(name), progress)
        finally:
            os.close(parent)
        seconds = time.monotonic() - started
        files = len(manifest.files)
        return ExportResult(opened.build.id, directory, files, manifest.size_bytes, seconds)


def pin(id: str, *, config: Config, reason: str, disk: Disk = DISK) -> Pin:
    """Keep a build, whatever the policy says, until it is unpinned."""
    if not reason.strip():
        raise ConfigError("a pin needs a reason: whoever cleans up will read it.")
    with translated("pin"), _open(disk, config) as store:
        with _build(store, id) as opened:
            made = Pin(opened.build.id, reason, _user_name(), int(disk.now()))
        Pin.parse(made.text(), "pin")  # one that nobody can read would stop whoever reads all
        ledger = DirectoryLedger(disk, store.root)
        ledger.write_pin(made)
        # As in a deploy: who removes it announced that before reading the pins, so one of the two
        # sees the other.
        if made.id not in store.ids() or made.id in ledger.removing():
            ledger.remove_pin(made.id)
            raise Conflict(
                f"build {made.id} is being removed from the store at {store.path}: it was not "
                "pinned. Publish it again, or pin another build."
            )
        return made


def _user_name() -> str:
    try:
        return getpass.getuser()[:100]
    except (KeyError, OSError):  # a container may run as any number
        return f"user {os.geteuid()}"


def unpin(id: str, *, config: Config, disk: Disk = DISK) -> int:
    """Take a person's pin away; returns how many there were (0 or 1)."""
    with translated("unpin"), _open(disk, config) as store:
        return int(DirectoryLedger(disk, store.root).remove_pin(build_id(id)))


# -- targets --------------------------------------------------------------------------------------


def deploy(
    what: str, *, config: Config, target: str | None = None, mode: str | None = None,
    checks: Sequence[Hook] = (), stage: str = "",
    progress: Progress = no_progress, dry_run: bool = False, disk: Disk = DISK,
) -> DeployResult:  # fmt: skip
    """Make a build live on one target: `what` is a bundle (folder or zip) or a build id.

    A bundle vouches for the content. For an id only the ledger does, and the result says so.
    """
    from moorline.wanted import from_words, host_policy

    started = time.monotonic()
    with translated("deploy"):
        store = host_policy(disk).store or config.store or config.settings.store
        store = store or config.store_path()
        root = target or config.target
        wanted = from_words(
            disk, what, store=store, root=root, mode=mode or "", stage=stage,
            settings=config.settings,
        )  # fmt: skip
        if checks:
            settings = replace(wanted.settings, check=(*wanted.settings.check, *checks))
            wanted = replace(wanted, settings=settings)
        root = root or wanted.settings.root or config.target_root(stage)
        if dry_run:
            return would_go_live(wanted, root, started)
        with open_target(disk, root) as opened, opened.lock():
            return _go(disk, opened, wanted, progress, started)


def rollback(
    *, config: Config, target: str | None = None, to: str | None = None, stage: str = "",
    trust_store: bool = False, progress: Progress = no_progress, dry_run: bool = False,
    disk: Disk = DISK,
) -> DeployResult:  # fmt: skip
    """The previous good release of a target live again, or build `to`.

    A release that the target holds needs nothing of the share.
    """
    from moorline.wanted import back_to, host_policy

    started = time.monotonic()
    with translated("rollback"):
        root = target or config.target_root(stage)
        store = host_policy(disk).store or config.store or config.settings.store
        with open_target(disk, root, make=False) as opened, opened.lock():
            wanted = back_to(
                opened, to or "", store=store, stage=stage, trust_store=trust_store,
                settings=config.settings,
            )  # fmt: skip
            if dry_run:
                return would_go_live(wanted, opened.root, started)
            return _go(disk, opened, wanted, progress, started)


def status(config: Config, *, disk: Disk = DISK) -> tuple[TargetRecord, ...]:
    """What each target said last in the ledger."""
    with translated("status"), _open(disk, config) as store:
        return tuple(DirectoryLedger(disk, store.root).targets())


def history(target: str, *, disk: Disk = DISK) -> tuple[Release, ...]:
    """The rows of a target's history, oldest first."""
    with translated("history"), open_target(disk, target, make=False) as opened:
        return tuple(opened.history())


def verify(
    *, config: Config, id: str | None = None, target: str | None = None, everything: bool = False,
    progress: Progress = no_progress, disk: Disk = DISK,
) -> tuple[VerifyResult, ...]:  # fmt: skip
    """Hash a build of the store, all of it, or what a target serves; list every difference."""
    from moorline.audit import verify_all, verify_build, verify_target

    with translated("verify"):
        if target:
            return (verify_target(disk, target, progress),)
        with _open(disk, config) as store:
            if everything:
                return tuple(verify_all(store, progress))
            with _build(store, id or "") as opened:
                return (verify_build(store, opened, progress),)


# -- the steps ------------------------------------------------------------------------------------


def _open(disk: Disk, config: Config) -> Store:
    return open_store(disk, config.store_path(), app=config.app or None)


def _build(store: Store, id: str) -> OpenBuild:
    name = build_id(id)
    known = store.ids()
    if name not in known:
        import difflib

        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]}?" if near else "'moorline builds' lists them."
        raise NotFound(f"no build {name} in the store at {store.path}. {hint}")
    return store.open_build(name)


def _rules(config: Config, store: Store) -> Rules:
    from moorline.scan import Rules

    linked = config.settings.linked
    root = config.settings.root if store.layout == "tree" else None
    if linked and store.layout == "tree" and not root:
        raise ConfigError(
            "linked paths in a store of layout tree need 'root' in the table [target]: the build "
            "is served from the share, so its links must name the target's folder."
        )
    return Rules(
        excluded=config.excluded(), linked=linked, linked_root=root, allow=config.allow,
        allow_external_links=config.allow_external_links,
    )  # fmt: skip


def _remember(ledger: DirectoryLedger, build: Build) -> None:
    """The ledger's record of a build; a missing or damaged one is written anew."""
    with contextlib.suppress(ConfigError):
        if ledger.build(build.id) == build:
            return
    ledger.write_build(build)


def _go(
    disk: Disk, target: Target, wanted: Wanted, progress: Progress, started: float
) -> DeployResult:
    """Called with the target's lock held."""
    from moorline.golive import GoLive

    go = GoLive(disk, target, wanted, progress)
    go.run()
    rows, live = target.history(), target.live_id()
    before = previous_of(rows, live)
    placed, notes = go.outcome.placed, list(go.outcome.notes)
    if wanted.source == "share":
        notes.append("only the ledger on the share vouches for this content, no bundle")
    return DeployResult(
        id=wanted.id,
        live=live,
        target=target.root,
        mode=wanted.mode,
        previous=before.id if before else None,
        pinned=go.outcome.pinned,
        seconds=time.monotonic() - started,
        verified_files=placed.verified_files,
        copied_files=placed.copied_files,
        copied_bytes=placed.copied_bytes,
        reused_files=placed.reused_files,
        notes=tuple(notes),
    )
