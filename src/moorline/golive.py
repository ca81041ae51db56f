"""One build on one target: prepare, switch, check, put back. The same code for deploy and rollback.

    prepare   prove the build and place it; nothing that is live changes (in `preparing`)
    switch    before_switch hooks, history "intended", the switch, after_switch hooks
    check     check hooks, history "live", the ledger, old releases removed

A failure before the switch leaves the old release live; one after it puts the old release back,
hooks included. CodeDeploy runs the three in three processes: what they share is deploying.json.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import Optional

from moorline.build import Release
from moorline.disk import Disk
from moorline.errors import Conflict, Error, HookFailed, Interrupted, PutBack, PutBackFailed
from moorline.hooks import Moment, run_hook
from moorline.preparing import Outcome, Preparation
from moorline.scan import Progress, no_progress
from moorline.settings import Hook
from moorline.target import Deploying, Target
from moorline.wanted import Wanted


class GoLive:
    """One deployment of one build to one target. Every method is called with its lock held."""

    def __init__(
        self, disk: Disk, target: Target, wanted: Wanted, progress: Progress = no_progress
    ) -> None:
        self.disk = disk
        self.target = target
        self.wanted = wanted
        self.settings = wanted.settings
        self.progress = progress
        self.preparation = Preparation(disk, target, wanted, progress)

    @property
    def outcome(self) -> Outcome:
        return self.preparation.outcome

    def run(self) -> Deploying:
        """All three steps in one process."""
        deploying = self.switch(self.prepare())
        self.check(deploying)
        self.finish(deploying)
        return deploying

    def prepare(self) -> Deploying:
        """Prove the build and place it. Nothing that is live changes, whatever happens here."""
        return self.preparation.prepare()

    # -- switch -------------------------------------------------------------------------------

    def switch(self, deploying: Deploying) -> Deploying:
        """Make the prepared release live. Raises Conflict when another was faster."""
        release = deploying.release
        if deploying.already:
            return deploying
        if self.target.current() != deploying.previous:
            self.preparation.drop(deploying)
            raise Conflict(
                f"build {release.id} was overtaken: {self.target.root}/current changed after it was "
                "prepared. Nothing was switched. Deploy again if it should still go live.",
                live=self.target.live_id(),
            )
        self.preparation.prove_again(deploying)
        try:
            self._hooks(self.settings.before_switch, "before_switch", deploying)
        except Error as error:
            self.preparation.drop(deploying)
            error.live = self.target.live_id()
            raise
        self.target.record(release.at("intended", int(self.disk.now())))
        self.target.switch(release.place)
        switched = replace(deploying, phase="switched")
        self.target.set_deploying(switched)
        try:
            self._hooks(self.settings.after_switch, "after_switch", switched)
        except (Error, KeyboardInterrupt) as error:
            self.put_back(switched, _failure(error))
        return switched

    def _hooks(self, hooks: tuple[Hook, ...], name: str, deploying: Deploying) -> None:
        if not hooks:
            return
        release = deploying.release
        manifest = self.target.manifest(release.digest)
        if manifest is None:
            raise HookFailed(
                f"the manifest of build {release.id} is missing on {self.target.root}."
            )
        rows = self.target.history()
        before = [row for row in rows if row.place == deploying.previous]
        moment = Moment(
            id=release.id,
            previous=before[-1].id if before and deploying.previous else "",
            release=self.target.path_of(release.place),
            stage=release.stage,
            reason=release.reason,
            manifest=manifest,
            private_copy=release.mode == "link",
            variables=self.wanted.variables,
        )
        for hook in hooks:
            self.progress(0, 0, f"{name}: {hook.shown}")
            run_hook(self.disk, hook, moment, name)

    # -- check --------------------------------------------------------------------------------

    def check(self, deploying: Deploying) -> None:
        """Ask whether the new release works; put the old one back when it does not."""
        try:
            self._hooks(self.settings.check, "check", deploying)
        except (Error, KeyboardInterrupt) as error:
            if deploying.already:
                self.target.set_deploying(None)
                raise
            self.put_back(deploying, _failure(error))

    def finish(self, deploying: Deploying) -> None:
        """The release passed: say so in the history and the ledger, and remove old ones."""
        release = deploying.release
        rows = self.target.history()
        if not any(row.place == release.place and row.step == "live" for row in rows[-3:]):
            left = self._left(deploying) if self.wanted.reason == "rollback" else ""
            self.target.record(release.at("live", int(self.disk.now()), left=left))
        self.target.set_deploying(None)
        self.preparation.report(deploying)
        with contextlib.suppress(OSError):
            self.target.clean(self.settings.keep_releases)

    def _left(self, deploying: Deploying) -> str:
        rows = [row for row in self.target.history() if row.place == deploying.previous]
        return rows[-1].id if rows and rows[-1].id != deploying.release.id else ""

    # -- put back -----------------------------------------------------------------------------

    def put_back(self, deploying: Deploying, reason: Error) -> None:
        """The old release live again. Always raises: PutBack, or PutBackFailed."""
        release, now = deploying.release, int(self.disk.now())
        if self.target.current() != release.place:
            self.target.set_deploying(None)
            raise Conflict(
                f"build {release.id} failed, but something else is live on {self.target.root} by "
                f"now: nothing was put back. The failure: {reason.message}",
                live=self.target.live_id(),
            ) from reason
        self.target.record(release.at("failed", now))
        old = self._old_release(deploying)
        if old is None and deploying.previous:
            self.target.set_deploying(None)
            raise PutBackFailed(
                f"build {release.id} went live and failed, and the release before it "
                f"({deploying.previous}) is gone. Deploy a good build now. {reason.message}",
                live=release.id,
            ) from reason
        self.target.switch(deploying.previous)
        if old is not None:
            self.target.record(old.at("restored", now, left=release.id, reason="put-back"))
        self._after_put_back(deploying, old, reason)

    def _old_release(self, deploying: Deploying) -> Optional[Release]:
        """What was live before, when it is still there."""
        if not deploying.previous:
            return None
        if not os.path.isdir(self.target.path_of(deploying.previous)):
            return None
        rows = [row for row in self.target.history() if row.place == deploying.previous]
        return rows[-1] if rows else None

    def _after_put_back(self, deploying: Deploying, old: Optional[Release], reason: Error) -> None:
        failed, live = deploying.release.id, self.target.live_id()
        try:
            if old is not None:
                again = replace(deploying, release=old, previous=deploying.release.place)
                self._hooks(self.settings.after_switch, "after_switch", again)
        except Error as second:
            raise PutBackFailed(
                f"build {failed} failed ({reason.message}); {live} is live again, but its "
                f"after_switch hook failed too: {second.message}",
                live=live,
            ) from reason
        finally:
            self.target.set_deploying(None)
            self.preparation.report(deploying)
        raise PutBack(
            f"build {failed} went live and failed: {reason.message}. "
            + (f"{live} is live again." if live else "Nothing is live, as before."),
            live=live,
        ) from reason


def _failure(error: BaseException) -> Error:
    return error if isinstance(error, Error) else Interrupted("interrupted")
