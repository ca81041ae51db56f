"""Prove a build and place it on one target: the first of the three steps of `golive`.

Nothing that is live changes here, whatever happens. What the target holds already is proved and
used without touching the share; everything else happens in a child that can be left behind.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field, replace
from typing import Callable, Optional, TypeVar

from moorline import releases
from moorline.build import BuildId, Release
from moorline.disk import Disk
from moorline.errors import ConfigError, Conflict, Error, Mismatch, NotFound, ShareDead
from moorline.garbage import uncollected
from moorline.guard import guarded
from moorline.held import open_releases, whole_release
from moorline.history import Deploying
from moorline.hooks import hook_user
from moorline.ledger.directory import DirectoryLedger
from moorline.linked import make_linked, owner_of, refuse_foreign_links
from moorline.manifest import Manifest
from moorline.place import Placed, Placement, hash_workers
from moorline.progress import Progress, no_progress
from moorline.settings import same_application
from moorline.store import OpenBuild, Store, open_store
from moorline.target import Target
from moorline.telling import target_record
from moorline.wanted import Wanted, host_policy

Result = TypeVar("Result")

REPORT_LIMIT_S = 3.0
FRESH_S = 10  # a proof of the share older than this is made again before the switch
_WAIT_STEP_S = 2.0


@dataclass
class Outcome:
    """What was done so far, for the report."""

    placed: Placed = field(default_factory=Placed)
    pinned: bool = False
    already: bool = False
    notes: list[str] = field(default_factory=list)


class Preparation:
    """Everything before the switch. Every method is called with the target's lock held."""

    def __init__(
        self, disk: Disk, target: Target, wanted: Wanted, progress: Progress = no_progress
    ) -> None:
        self.disk = disk
        self.target = target
        self.wanted = wanted
        self.settings = wanted.settings
        self.progress = progress
        self.outcome = Outcome()

    # -- prepare ------------------------------------------------------------------------------

    def prepare(self) -> Deploying:
        """Prove the build and place it. Nothing that is live changes, whatever happens here."""
        self._take_over()
        policy, user = host_policy(self.disk), hook_user("").pw_name or str(os.geteuid())
        policy.check(self.settings, self.target.root, self.wanted.mode, user)
        make_linked(self.target, self.settings)
        rows = self.target.history()
        started = int(self.disk.now())
        held = self._held_release(rows)
        release = self._release(rows, held)
        Release.parse(release.text(), "this deployment")  # no row is written that nobody can read
        deploying = Deploying(
            deployment=self.wanted.deployment,
            group=self.wanted.group,
            release=release,
            previous=self._before(release, rows),
            phase="preparing",
            started=started,
            already=self._already(release, rows),
        )
        self.target.set_deploying(deploying)
        try:
            if held is None:
                self._place(release, rows)
            elif self._lacks_agent():
                self._briefly(self._keep_agent)
            self._keep_settings()
        except BaseException as error:
            self.drop(deploying)
            if not isinstance(error, ShareDead):
                self.report()
            raise
        self.outcome.already = deploying.already
        prepared = replace(
            deploying, phase="prepared", prepared=int(self.disk.now()), pinned=self.outcome.pinned
        )
        self.target.set_deploying(prepared)
        return prepared

    def _held_release(self, rows: list[Release]) -> Optional[Release]:
        """What needs no share: a local release of this very build, verified just now."""
        wanted = self.wanted
        if wanted.mode != "copy":
            return None
        found = whole_release(self.target, wanted.id, wanted.digest, rows, self.progress)
        self.outcome.notes += found.notes
        if found.release is not None:
            self.outcome.placed = Placed(found.files, 0, 0, found.files)
        return found.release

    def _already(self, release: Release, rows: list[Release]) -> bool:
        """Whether this very content is live and passed. Else a switch to it was cut short: its
        hooks are owed."""
        live = self.target.live(rows)
        passed = live is not None and live.step != "intended" and live.digest == release.digest
        return passed and release.place == self.target.current()

    def _before(self, release: Release, rows: list[Release]) -> str:
        """What to put back when this fails: what is live, or what was before a switch to this very
        release that was cut short."""
        current = self.target.current()
        if release.place != current or self._already(release, rows):
            return current
        for row in reversed(rows):
            good = row.step in ("live", "restored") and row.place != current
            if good and self.is_there(row.place):
                return row.place
        return ""

    def is_there(self, place: str) -> bool:
        """Whether a release can be put back. A share that does not answer says nothing about one
        that was served from it a moment ago."""
        path = self.target.path_of(place)
        if not place.startswith("/"):
            return os.path.isdir(path)
        limit_s = min(self.settings.store_timeout_s, REPORT_LIMIT_S)
        try:
            return guarded(
                self.disk, lambda _: os.path.isdir(path), stall_s=limit_s, where=path,
                progress=no_progress,
            )  # fmt: skip
        except ShareDead:
            return True

    def _take_over(self) -> None:
        """Refuse while another deployment is between its processes; pass over a dead one."""
        other = self.target.deploying()
        if other is None or (other.deployment and other.deployment == self.wanted.deployment):
            return
        age = int(self.disk.now()) - other.started
        dead = not other.deployment or (other.group and other.group == self.wanted.group)
        if dead or age > self.settings.deploy_timeout_s or age < 0:
            name = f"deployment {other.deployment}" if other.deployment else "a deploy"
            self.outcome.notes.append(
                f"took over from {name} of build {other.release.id} that did not end "
                f"(phase {other.phase})"
            )
            return
        raise Conflict(
            f"deployment {other.deployment} of build {other.release.id} is under way on "
            f"{self.target.root} (phase {other.phase}, {age} s old). Wait for it to end; after "
            f"{self.settings.deploy_timeout_s} s it is taken over.",
            live=self.target.live_id(),
        )

    def _release(self, rows: list[Release], held: Optional[Release]) -> Release:
        number = self.target.next_number(rows)
        if held is not None:
            place = held.place
        elif self.wanted.mode == "link":
            place = f"{os.path.abspath(self.wanted.store)}/builds/{self.wanted.id}/tree"
        else:
            place = f"releases/{self.wanted.id}.{number}"
        return self.wanted.release(number, place, int(self.disk.now()))

    # -- what the share holds -------------------------------------------------------------------

    def _place(self, release: Release, rows: list[Release]) -> None:
        """Everything that touches the share, in a child that can be left behind."""

        def work(progress: Progress) -> Outcome:
            with open_store(self.disk, self.wanted.store) as store:
                same_application(self.settings, store.app, store.id, store.path)
                self._pin(store)
                with self._find(store, progress) as opened:
                    self._place_from(store, opened, release, rows, progress)
            return self.outcome

        if not self.wanted.store:
            raise NotFound(
                f"{self.target.root} holds no whole copy of build {self.wanted.id}. Name the store "
                "to take it from, or deploy its bundle."
            )
        self.outcome = guarded(
            self.disk, work, stall_s=self.settings.store_timeout_s, where=self.wanted.store,
            progress=self.progress,
        )  # fmt: skip
        if release.mode == "copy":
            self._barrier(release)

    def _barrier(self, release: Release) -> None:
        """Everything placed is durable. Not in the child: this disk may be slow, but not dead."""
        fd = self.disk.open_directory(release.place, self.target.fd)
        try:
            self.disk.sync_all(fd)
        finally:
            os.close(fd)

    def _find(self, store: Store, progress: Progress) -> OpenBuild:
        """The build; waits for it, by listing, as long as the settings say.

        Steps back when it is being removed: the pin was written before this looks.
        """
        deadline = time.monotonic() + self.settings.store_wait_s
        while self.wanted.id not in store.ids():
            if time.monotonic() >= deadline:
                raise NotFound(
                    f"no build {self.wanted.id} in the store at {store.path} (waited "
                    f"{self.settings.store_wait_s} s). Publish it again, or restore it.",
                    live=self.target.live_id(),
                )
            progress(0, 0, "waiting for the build")
            time.sleep(min(_WAIT_STEP_S, self.settings.store_timeout_s / 3))
        if self.wanted.id in DirectoryLedger(self.disk, store.root).removing():
            raise Conflict(
                f"build {self.wanted.id} is being removed from the store at {store.path}. "
                "Publish it again, or deploy another build.",
                live=self.target.live_id(),
            )
        return store.open_build(self.wanted.id)

    @uncollected()
    def _place_from(
        self, store: Store, opened: OpenBuild, release: Release, rows: list[Release],
        progress: Progress,
    ) -> None:  # fmt: skip
        if self._lacks_agent():
            self._keep_agent(store)
        if self.wanted.mode == "link":
            self._keep_manifest(self._prove_tree(store, opened, progress))
        else:
            self._copy(opened, release, rows, progress)

    def _keep_manifest(self, manifest: Manifest) -> None:
        self.target.keep(b"manifests", self.wanted.digest, manifest.text)

    def _keep_agent(self, store: Store) -> None:
        """The agent that the bundle pins, for a rollback without the share."""
        name = f"{self.wanted.agent}.pyz"
        try:
            self.target.keep(b"agents", name, store.get(b"agent", name, self.wanted.agent))
        except (OSError, NotFound, Mismatch) as error:
            self.outcome.notes.append(f"the agent was not kept on this target: {error}")

    def _lacks_agent(self) -> bool:
        """Whether the bundle's agent has to be kept; what is kept already is made durable. Most
        builds come with the agent of the build before."""
        if not self.wanted.agent or not self.wanted.store:
            return False
        try:
            if not self.target.keeps(b"agents", f"{self.wanted.agent}.pyz"):
                return True
            self.target.settle(b"agents")
            return False
        except OSError:
            return True

    def _keep_settings(self) -> None:
        digest = self.wanted.settings_digest
        if digest:
            self.target.keep(b"settings", f"{digest}.json", self.settings.text)

    def _prove_tree(self, store: Store, opened: OpenBuild, progress: Progress) -> Manifest:
        if store.layout != "tree":
            raise ConfigError(
                f"mode link needs a store of layout tree; {store.path} has layout {store.layout}. "
                "Deploy in mode copy, or publish into a store made with '--layout tree'."
            )
        with contextlib.closing(opened.verifier()) as verifier:
            manifest = opened.manifest(self.wanted.digest, self.wanted.manifest_bytes)
            refuse_foreign_links(self.target, self.settings, manifest)
            found = opened.verify(manifest, progress, verifier)
        if found.problems:
            raise Mismatch(
                f"build {self.wanted.id} at {opened.path} does not match its manifest: "
                f"{len(found.problems)} problem(s). It was changed after publishing; nothing was "
                "switched. Publish the same build again: that repairs it.", problems=found.problems,
            )  # fmt: skip
        self.outcome.placed = Placed(found.files, 0, 0, found.files)
        return manifest

    def _copy(
        self, opened: OpenBuild, release: Release, rows: list[Release], progress: Progress
    ) -> None:
        name = release.place.partition("/")[2]
        with contextlib.ExitStack() as stack:
            held = stack.enter_context(open_releases(self.target, rows))
            folder = stack.enter_context(self.target.folder(b"releases"))
            self.disk.make_directory(name, 0o700, folder)
            root = self.disk.open_directory(name, folder)
            stack.callback(os.close, root)
            files, size_bytes = (opened.build.files, opened.build.size_bytes) if held else (0, 0)
            hashers = hash_workers(self.disk, root, files=files, size_bytes=size_bytes)
            stack.callback(hashers.close)
            manifest = opened.manifest(self.wanted.digest, self.wanted.manifest_bytes)
            self._keep_manifest(manifest)  # now: a sync takes long after thousands of changes
            self.outcome.placed = Placement(
                self.disk, root, manifest, opened.times(manifest), opened.reader(manifest), held,
                owner_of(self.settings), progress, hashers,
            ).run()  # fmt: skip
        damaged = self.outcome.placed.damaged
        if damaged:
            self.outcome.notes.append(
                f"{len(damaged)} local file(s) were damaged and written anew: "
                f"{', '.join(damaged[:3])}"
            )

    def _pin(self, store: Store) -> None:
        """Say in the ledger what this target needs, before looking for the build."""
        self.outcome.pinned = self._tell(store, deploying=self.wanted.id)

    def _tell(self, store: Store, deploying: Optional[BuildId] = None) -> bool:
        """Write this target's record; a share that cannot be written does not stop a deploy."""
        record = target_record(self.target, self.wanted.stage, deploying)
        try:
            DirectoryLedger(self.disk, store.root).write_target(record)
        except OSError as error:
            self.outcome.notes.append(f"the ledger was not written: {error.strerror}")
            return False
        return True

    def drop(self, deploying: Deploying) -> None:
        """A failed preparation leaves nothing of its own behind, as well as it goes."""
        mine = self.target.deploying()
        if mine is not None and mine.deployment == deploying.deployment:
            with contextlib.suppress(OSError):
                self.target.set_deploying(None)
        if not deploying.already:
            with contextlib.suppress(OSError):
                releases.clean(self.target, self.settings.keep_releases)

    def report(self) -> None:
        """Tell the ledger what is live now; best effort, the target's own history is the truth.

        A rollback that needed no share tells it only when a store was named.
        """
        if self.wanted.store:
            self.outcome.pinned = bool(self._briefly(self._tell))

    def _briefly(self, work: Callable[[Store], Result]) -> Optional[Result]:
        """What a deploy asks of the share at its end: nothing for which it would wait long."""

        def guarded_work(progress: Progress) -> tuple[Result, list[str]]:
            with open_store(self.disk, self.wanted.store) as store:
                return work(store), self.outcome.notes

        limit_s = min(self.settings.store_timeout_s, REPORT_LIMIT_S)
        try:
            result, self.outcome.notes = guarded(
                self.disk, guarded_work, stall_s=limit_s, where=self.wanted.store,
                progress=no_progress,
            )  # fmt: skip
            return result
        except (Error, OSError) as error:
            self.outcome.notes.append(f"the share was not told: {error}")
            return None

    def prove_again(self, deploying: Deploying) -> None:
        """In mode link the share could have changed since it was proved, or be gone."""
        if deploying.release.mode != "link":
            return
        fresh = 0 <= int(self.disk.now()) - deploying.prepared <= FRESH_S

        def work(progress: Progress) -> None:
            if fresh:
                os.close(self.disk.open_directory(deploying.release.place))
                return
            with (
                open_store(self.disk, self.wanted.store) as store,
                store.open_build(self.wanted.id) as opened,
            ):
                self._prove_tree(store, opened, progress)

        guarded(
            self.disk, work, stall_s=self.settings.store_timeout_s, where=self.wanted.store,
            progress=self.progress,
        )  # fmt: skip
