"""One build on one target: prepare, switch, check, put back. The same code for deploy and rollback.

    prepare   prove the build and place it; nothing that is live changes (in `preparing`)
    switch    before_switch hooks, history "intended", the switch, after_switch hooks
    check     check hooks, history "live", the ledger, old releases removed

A failure before the switch leaves the old release live; one after it puts the old release back,
hooks included. CodeDeploy runs the three in three processes: what they share is deploying.json.
"""

from __future__ import annotations

import contextlib
import errno
from dataclasses import replace
from typing import NoReturn, Optional

from moorline import releases
from moorline.build import Release
from moorline.disk import Disk
from moorline.errors import (
    Conflict,
    Error,
    HookFailed,
    Interrupted,
    PutBack,
    PutBackFailed,
    from_os_error,
)
from moorline.history import Deploying
from moorline.hooks import Moment, run_hook
from moorline.preparing import Outcome, Preparation
from moorline.progress import Progress, no_progress
from moorline.settings import Hook, Settings
from moorline.target import Target
from moorline.wanted import Wanted, kept_settings


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
        try:
            deploying = self.switch(self.prepare())
            self.check(deploying)
            self.finish(deploying)
        except KeyboardInterrupt as error:
            live = self.target.live_id()
            raise Interrupted(
                f"interrupted: {live or 'nothing'} is live on {self.target.root}. What was left "
                "unfinished there is removed by the next deploy.",
                live=live,
            ) from error
        return deploying

    def prepare(self) -> Deploying:
        """Prove the build and place it. Nothing that is live changes, whatever happens here."""
        try:
            return self.preparation.prepare()
        except Error as error:
            error.live = self.target.live_id()
            raise

    # -- switch -------------------------------------------------------------------------------

    def switch(self, deploying: Deploying) -> Deploying:
        """Make the prepared release live. Raises Conflict when another was faster."""
        release = deploying.release
        if deploying.already:
            return deploying
        try:
            if self.target.current() not in (deploying.previous, release.place):
                raise Conflict(
                    f"build {release.id} was overtaken: {self.target.root}/current changed after "
                    "it was prepared. Nothing was switched. Deploy again if it should go live."
                )
            self.preparation.prove_again(deploying)
            self._hooks(self.settings.before_switch, "before_switch", deploying)
            self.target.record(release.at("intended", int(self.disk.now())))
        except (Error, OSError, KeyboardInterrupt) as error:
            self._not_switched(deploying, error)
        try:
            self.target.switch(release.place)
            self._hooks(self.settings.after_switch, "after_switch", deploying)
            switched = replace(deploying, phase="switched")
            self.target.set_deploying(switched)
        except (Error, OSError, KeyboardInterrupt) as error:
            if self.target.current() == deploying.previous:
                self._not_switched(deploying, error)
            self.put_back(deploying, _failure(error))
        return switched

    def _not_switched(self, deploying: Deploying, error: BaseException) -> NoReturn:
        """Raises the failure, with what stays live; of the preparation nothing is left."""
        self.preparation.drop(deploying)
        self.preparation.report()
        live = self.target.live_id()
        failure = _failure(error)
        if isinstance(error, KeyboardInterrupt):
            failure = Interrupted(
                f"interrupted before the switch: {live or 'nothing'} is live, as before. What was "
                "prepared is removed."
            )
        failure.live = live
        raise failure

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
        """Ask whether the new release works, and say in the history that it does; put the old one
        back when it does not."""
        try:
            self._hooks(self.settings.check, "check", deploying)
            self._passed(deploying)
        except (Error, OSError, KeyboardInterrupt) as error:
            if deploying.already:
                self._not_switched(deploying, error)
            self.put_back(deploying, _failure(error))

    def _passed(self, deploying: Deploying) -> None:
        """History "live", unless what is live again had passed before."""
        release, rows = deploying.release, self.target.history()
        if [row.step for row in rows if row.place == release.place][-1:] != ["live"]:
            left = self._left(deploying) if self.wanted.reason == "rollback" else ""
            self.target.record(release.at("live", int(self.disk.now()), left=left))

    def _left(self, deploying: Deploying) -> str:
        rows = [row for row in self.target.history() if row.place == deploying.previous]
        return rows[-1].id if rows and rows[-1].id != deploying.release.id else ""

    def finish(self, deploying: Deploying) -> None:
        """The release passed: tell the ledger, and remove old ones. Nothing of this can fail it."""
        self._end()
        with contextlib.suppress(OSError):
            removed = releases.clean(self.target, self.settings.keep_releases)
            ended = {row.place for row in self.target.history() if row.step != "intended"}
            left = [place for place in removed if place not in ended]
            if left:
                self.outcome.notes.append(f"removed what an earlier run left: {', '.join(left)}")

    def _end(self) -> None:
        """No deployment is under way any more, and the ledger knows what is live."""
        with contextlib.suppress(OSError):
            self.target.set_deploying(None)
        self.preparation.report()

    # -- put back -----------------------------------------------------------------------------

    def put_back(self, deploying: Deploying, reason: Error) -> NoReturn:
        """The old release live again: raises PutBack, or PutBackFailed.

        Only a hook says that a build is not good to go back to: Ctrl-C or a full disk do not.
        """
        release, previous, now = deploying.release, deploying.previous, int(self.disk.now())
        if self.target.current() != release.place:
            self._end()
            raise Conflict(
                f"build {release.id} failed, but something else is live on {self.target.root} by "
                f"now: nothing was put back. The failure: {reason.message}",
                live=self.target.live_id(),
            ) from reason
        old = self._old_release(deploying)
        self._note(release.at("failed", now))
        try:
            if previous and not self.preparation.is_there(previous):
                raise FileNotFoundError(errno.ENOENT, "it is gone")
            self.target.switch(previous)
        except OSError as error:
            self._end()
            raise PutBackFailed(
                f"build {release.id} went live and failed, and {previous or 'nothing'} could not "
                f"be put back: {error.strerror}. Deploy a good build now. {reason.message}",
                live=self.target.live_id(),
            ) from reason
        if old is not None:
            left = release.id if isinstance(reason, HookFailed) else ""
            old = old.at("restored", now, left=left, reason="put-back")
            self._note(old)
        self._after_put_back(deploying, old, reason)

    def _old_release(self, deploying: Deploying) -> Optional[Release]:
        """The row of what was live before; None when it was not deployed by Moorline."""
        rows = [row for row in self.target.history() if row.place == deploying.previous]
        return rows[-1] if rows and deploying.previous else None

    def _note(self, row: Release) -> None:
        """A row that must not keep the old release from being put back: the disk may be full."""
        try:
            self.target.record(row)
        except OSError as error:
            self.outcome.notes.append(f"the history was not written: {error.strerror}")

    def _after_put_back(
        self, deploying: Deploying, old: Optional[Release], reason: Error
    ) -> NoReturn:
        """The old release's own after_switch hooks, then the verdict."""
        failed, live = deploying.release.id, self.target.live_id()
        try:
            if old is not None:
                again = replace(deploying, release=old, previous=deploying.release.place)
                self._hooks(self._settings_of(old).after_switch, "after_switch", again)
        except (Error, OSError) as second:
            raise PutBackFailed(
                f"build {failed} failed ({_sentence(reason)}); {live} is live again, but its "
                f"after_switch hook failed too: {_sentence(_failure(second))}.",
                live=live,
            ) from reason
        finally:
            self._end()
        now = live or deploying.previous
        raise PutBack(
            f"build {failed} went live and failed: {_sentence(reason)}. "
            + (f"{now} is live again." if now else "Nothing is live, as before."),
            live=live,
        ) from reason

    def _settings_of(self, old: Release) -> Settings:
        """What `old` was deployed with, as a rollback to it would use; else what we have."""
        with contextlib.suppress(Error):
            if old.settings:
                return kept_settings(self.target, old).for_group(old.stage)
        return self.settings


def _failure(error: BaseException) -> Error:
    if isinstance(error, OSError):
        return from_os_error(error, "going live")
    return error if isinstance(error, Error) else Interrupted("interrupted")


def _sentence(error: Error) -> str:
    return error.message.rstrip(".")
