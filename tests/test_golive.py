"""Going live: the switch, the hooks, what is put back, and what is left after any interruption."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes import ActingDisk, CountingDisk, FailingDisk, Stopped, StoppingDisk
from moorline import workflow
from moorline.disk import AnyPath, Disk
from moorline.errors import (
    Conflict,
    Error,
    HookFailed,
    Interrupted,
    Mismatch,
    NotFound,
    PutBack,
    PutBackFailed,
)
from moorline.golive import GoLive
from moorline.scan import scan
from moorline.verifying import verify
from trees import SITE, Content, write_tree
from world import B, World, answering, flip, says, script

SITE_B: dict[str, Content] = {**SITE, **B}
SMALL_A: dict[str, Content] = {"index.html": b"one"}
SMALL_B: dict[str, Content] = {"index.html": b"two", "new": b"new"}


def problems(root: Path, source: Path) -> tuple[object, ...]:
    return verify(CountingDisk(), root, scan(CountingDisk(), source).manifest).problems


def log(world: World) -> list[str]:
    path = world.here / "log"
    return path.read_text().splitlines() if path.exists() else []


def logs(world: World, word: str, then: str = "") -> dict[str, object]:
    """A hook that notes what it sees, and then does `then`."""
    line = (
        f'echo "{word} $MOORLINE_ID from=$MOORLINE_PREVIOUS why=$MOORLINE_REASON '
        f'live=$(readlink {world.root}/current)" >> {world.here}/log; {then}'
    )
    return {"run": ["sh", "-c", line]}


def every(world: World, **then: str) -> dict[str, list[object]]:
    """Hooks for all three moments; `then` is what one of them does in addition."""
    moments = ("before_switch", "after_switch", "check")
    return {moment: [logs(world, moment, then.get(moment, ""))] for moment in moments}


@pytest.fixture
def on_a(world: World) -> World:
    """A target that serves build a; b is published with no hooks yet."""
    world.publish("a")
    world.deploy("a")
    return world


def is_whole_a(world: World) -> None:
    """The old release is live, untouched, and nothing of the failed one is left."""
    assert world.link == "releases/a.1"
    assert problems(world.live, world.here / "src" / "a") == ()
    assert not (world.inner / "deploying.json").exists()


# -- the order ------------------------------------------------------------------------------------


def test_hooks_run_in_their_order_and_know_what_they_need(on_a: World) -> None:
    on_a.publish("b", SITE_B, hooks=every(on_a))
    on_a.deploy("b", stage="PROD")

    assert log(on_a) == [
        "before_switch b from=a why=deploy live=releases/a.1",
        "after_switch b from=a why=deploy live=releases/b.2",
        "check b from=a why=deploy live=releases/b.2",
    ]
    assert on_a.steps() == [("a", "intended"), ("a", "live"), ("b", "intended"), ("b", "live")]


def test_history_says_intended_before_the_switch_and_live_after_the_check(on_a: World) -> None:
    hook = {"run": ["sh", "-c", f"tail -n 1 {on_a.inner}/history.jsonl >> {on_a.here}/log"]}
    on_a.publish("b", SITE_B, hooks={"after_switch": [hook], "check": [hook]})
    on_a.deploy("b")

    assert ['"step":"intended"' in line for line in log(on_a)] == [True, True]


def test_what_is_switched_to_is_durable_and_so_is_the_intention(on_a: World) -> None:
    on_a.publish("b", SITE_B)
    disk = CountingDisk()
    on_a.deploy("b", disk=disk)
    steps = disk.operations
    switch = steps.index(("rename", "current"))
    barrier = max(at for at in range(switch) if steps[at][0] == "sync_all")
    intended = max(at for at in range(switch) if steps[at] == ("append", "history.jsonl"))
    made = ("create", "hard_link", "clone", "make_directory", "make_link")

    assert barrier < intended < switch
    assert [step for step, _ in steps[intended:switch]][-3:-1] == ["write", "sync"]
    assert all(path.startswith(".") for step, path in steps[barrier:switch] if step in made)
    assert steps[switch + 1][0] == "sync"


def test_a_rollback_runs_the_hooks_of_the_release_that_it_goes_to(world: World) -> None:
    world.publish("a", SITE, hooks={"after_switch": [logs(world, "a's")]})
    world.publish("b", SITE_B, hooks={"after_switch": [logs(world, "b's")]})
    world.deploy("a")
    world.deploy("b")
    world.rollback()

    assert log(world)[2:] == ["a's a from=b why=rollback live=releases/a.1"]


# -- failing before the switch --------------------------------------------------------------------


def test_a_failing_before_switch_leaves_the_old_release_live(on_a: World) -> None:
    on_a.publish("b", SITE_B, hooks=every(on_a, before_switch="echo no; exit 9"))
    with pytest.raises(HookFailed, match=r"before_switch hook failed.*ended with 9.*no") as caught:
        on_a.deploy("b")

    assert (caught.value.exit_code, caught.value.live) == (1, "a")
    assert [line.split()[0] for line in log(on_a)] == ["before_switch"]
    is_whole_a(on_a)
    assert on_a.releases() == ["a.1"]
    assert on_a.steps() == [("a", "intended"), ("a", "live")]
    assert (on_a.record().current, on_a.record().deploying) == ("a", None)


def test_the_first_failing_hook_ends_it(on_a: World) -> None:
    hooks = {"before_switch": [logs(on_a, "1"), logs(on_a, "2", "false"), logs(on_a, "3")]}
    on_a.publish("b", SITE_B, hooks=hooks)
    with pytest.raises(HookFailed):
        on_a.deploy("b")
    assert [line.split()[0] for line in log(on_a)] == ["1", "2"]


# -- failing after the switch ---------------------------------------------------------------------


def test_a_failing_after_switch_puts_the_old_release_back(on_a: World) -> None:
    fails_for_b = 'test "$MOORLINE_ID" != b'
    on_a.publish("b", SITE_B, hooks=every(on_a, after_switch=fails_for_b))
    with pytest.raises(PutBack, match="a is live again") as caught:
        on_a.deploy("b")

    assert (caught.value.exit_code, caught.value.live) == (6, "a")
    is_whole_a(on_a)
    assert on_a.steps()[2:] == [("b", "intended"), ("b", "failed"), ("a", "restored")]
    assert (on_a.record().current, on_a.record().deploying) == ("a", None)


@pytest.fixture
def hooked(world: World) -> World:
    """A target on a; build b has the same hooks, and a check that fails while `bad` is there.
    after_switch fails while `broken` is there."""
    hooks = every(
        world, after_switch=f"! test -e {world.here}/broken", check=f"! test -e {world.here}/bad"
    )
    world.publish("a", SITE, hooks=hooks)
    world.publish("b", SITE_B, hooks=hooks)
    world.deploy("a")
    (world.here / "log").unlink()
    (world.here / "bad").touch()
    return world


def test_a_failing_check_puts_the_old_release_back_and_runs_its_after_switch(
    hooked: World,
) -> None:
    with pytest.raises(PutBack, match="check hook failed") as caught:
        hooked.deploy("b")

    assert caught.value.exit_code == 6
    is_whole_a(hooked)
    assert log(hooked)[1:] == [
        "after_switch b from=a why=deploy live=releases/b.2",
        "check b from=a why=deploy live=releases/b.2",
        "after_switch a from=b why=put-back live=releases/a.1",
    ]


def test_after_a_put_back_the_same_build_can_be_deployed(hooked: World) -> None:
    with pytest.raises(PutBack):
        hooked.deploy("b")
    (hooked.here / "bad").unlink()
    result = hooked.deploy("b")

    assert (result.live, result.previous) == ("b", "a")
    assert problems(hooked.live, hooked.here / "src" / "b") == ()
    assert result.copied_files == 0  # the failed release is still there, and is proved again


def test_the_put_back_runs_the_old_release_s_own_hooks(world: World) -> None:
    """As a rollback would: the new build may bring a program that the old one has not got."""
    restart = script(f"echo restart $MOORLINE_ID >> {world.here}/log")
    world.publish(
        "a", {**SITE, "bin/old": restart}, hooks={"after_switch": [{"run": ["./bin/old"]}]}
    )
    world.publish(
        "b", {**SITE, "bin/new": restart},
        hooks={"after_switch": [{"run": ["./bin/new"]}], "check": [{"run": ["false"]}]},
    )  # fmt: skip
    world.deploy("a")
    with pytest.raises(PutBack):
        world.deploy("b")

    assert log(world) == ["restart a", "restart b", "restart a"]


def test_a_first_deploy_whose_check_fails_leaves_nothing_live(world: World) -> None:
    world.publish("a", SITE, hooks=every(world, check="false"))
    with pytest.raises(PutBack, match="Nothing is live, as before") as caught:
        world.deploy("a")

    assert (caught.value.exit_code, caught.value.live) == (6, None)
    assert not os.path.lexists(world.root / "current")
    assert [line.split()[0] for line in log(world)] == ["before_switch", "after_switch", "check"]
    assert world.steps() == [("a", "intended"), ("a", "failed")]
    assert (world.record().current, world.record().deploying) == (None, None)


def test_what_was_live_before_moorline_is_put_back_too(world: World) -> None:
    write_tree(world.here / "old", {"index.php": b"old"})
    world.root.mkdir()
    (world.root / "current").symlink_to("../old")
    world.publish("a", SITE, hooks=every(world, check="false"))
    with pytest.raises(PutBack, match=r"\.\./old is live again") as caught:
        world.deploy("a")

    assert caught.value.live is None
    assert (world.root / "current" / "index.php").read_bytes() == b"old"
    assert (world.here / "old").is_dir()


def test_when_the_old_release_is_gone_nothing_can_be_put_back(world: World) -> None:
    world.publish("a")
    world.deploy("a")
    world.publish("b", SITE_B, hooks=every(world, check=f"rm -r {world.live}; false"))
    with pytest.raises(PutBackFailed, match=r"releases/a\.1 could not be put back") as caught:
        world.deploy("b")

    assert (caught.value.exit_code, caught.value.live) == (7, "b")
    assert world.link == "releases/b.2"
    assert problems(world.live, world.here / "src" / "b") == ()
    assert world.steps()[2:] == [("b", "intended"), ("b", "failed")]
    assert not (world.inner / "deploying.json").exists()
    assert (world.record().current, world.record().deploying) == ("b", None)


def test_an_after_switch_that_fails_again_is_exit_7_with_the_old_release_live(
    hooked: World,
) -> None:
    (hooked.here / "broken").touch()
    with pytest.raises(PutBackFailed, match="a is live again, but its after_switch") as caught:
        hooked.deploy("b")

    assert (caught.value.exit_code, caught.value.live) == (7, "a")
    is_whole_a(hooked)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("moment", ["before_switch", "after_switch", "check"])
def test_an_interrupt_in_the_middle_of_a_hook(on_a: World, moment: str) -> None:
    """Ctrl-C, or the SIGTERM of CodeDeploy's time limit."""
    then = {moment: "head -c 100000 /dev/zero; kill -INT $PPID; exec sleep 300"}
    on_a.publish("b", SITE_B, hooks=every(on_a, **then))
    wanted = Interrupted if moment == "before_switch" else PutBack
    with pytest.raises(wanted):
        on_a.deploy("b")

    is_whole_a(on_a)
    assert not sleeps(on_a)


def sleeps(world: World) -> list[int]:
    """Processes that still hold something below the world open, as their working directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                where = os.readlink(entry / "cwd")
            except OSError:
                continue
            if where.startswith(str(world.here)):
                found.append(int(entry.name))
    return found


# -- checks ---------------------------------------------------------------------------------------


def test_a_check_that_passes_at_the_third_try_is_good(on_a: World) -> None:
    counts = f"echo x >> {on_a.here}/tries; test $(wc -l < {on_a.here}/tries) -ge 3"
    check = {"run": ["sh", "-c", counts], "retries": 3, "retry_wait_s": 0}
    on_a.publish("b", SITE_B, hooks={"check": [check]})
    on_a.deploy("b")

    assert (on_a.here / "tries").read_text() == "x\n" * 3
    assert on_a.link == "releases/b.2"


def test_an_address_that_answers_is_a_good_check(on_a: World) -> None:
    with answering(says(200, "all is well")) as address:
        check = {"url": f"{address}/health?x=1", "contains": "well"}
        on_a.publish("b", SITE_B, hooks={"check": [check]})
        on_a.deploy("b")
    assert on_a.link == "releases/b.2"


def test_an_address_that_fails_puts_back(on_a: World) -> None:
    with answering(says(500, "all is well")) as address:
        on_a.publish("b", SITE_B, hooks={"check": [{"url": address}]})
        with pytest.raises(PutBack, match="answered 500"):
            on_a.deploy("b")
    is_whole_a(on_a)


# -- what is live, again --------------------------------------------------------------------------


def test_deploying_what_is_live_verifies_it_and_adds_nothing(on_a: World) -> None:
    on_a.publish("b", SITE_B, hooks=every(on_a))
    on_a.deploy("b")
    (on_a.here / "log").unlink()
    rows, releases = on_a.rows(), on_a.releases()
    result = on_a.deploy("b")

    assert (result.live, result.previous, result.verified_files) == ("b", "a", 7)
    assert (result.copied_files, result.reused_files) == (0, 7)
    assert on_a.rows() == rows
    assert on_a.releases() == releases
    assert [line.split()[0] for line in log(on_a)] == ["check"]


def test_a_damaged_live_release_is_rebuilt_beside_itself(on_a: World) -> None:
    for name in ("index.html", "img/a.png"):
        flip(on_a.live / name)
    (on_a.live / "extra").write_text("x")
    result = on_a.deploy("a")

    assert on_a.link == "releases/a.2"
    assert problems(on_a.live, on_a.here / "src" / "a") == ()
    assert (result.copied_files, result.reused_files) == (2, 4)
    assert any("releases/a.1 was damaged (3 problem(s))" in note for note in result.notes)
    assert on_a.steps() == [("a", "intended"), ("a", "live")] * 2

    rows = on_a.rows()
    again = on_a.deploy("a")
    assert on_a.rows() == rows
    assert on_a.link == "releases/a.2"
    assert not any("damaged" in note for note in again.notes)


def test_a_live_release_that_lost_its_manifest_is_rebuilt(on_a: World) -> None:
    for path in (on_a.inner / "manifests").iterdir():
        path.write_bytes(b"rubbish")
    on_a.deploy("a")
    assert on_a.link == "releases/a.2"
    assert problems(on_a.live, on_a.here / "src" / "a") == ()


def test_a_failing_check_of_what_is_live_changes_nothing(hooked: World) -> None:
    with pytest.raises(HookFailed) as caught:
        hooked.deploy("a")

    assert (caught.value.exit_code, caught.value.live) == (1, "a")
    is_whole_a(hooked)
    assert hooked.steps() == [("a", "intended"), ("a", "live")]


# -- there and back -------------------------------------------------------------------------------


def test_rollback_goes_to_the_release_before_and_not_back_and_forth(on_a: World) -> None:
    on_a.publish("b", SITE_B)
    on_a.deploy("b")
    result = on_a.rollback()

    assert (result.id, result.live, result.previous) == ("a", "a", None)
    assert on_a.link == "releases/a.1"
    with pytest.raises(NotFound, match="no release to go back to") as caught:
        on_a.rollback()
    assert (caught.value.exit_code, caught.value.live) == (4, "a")


def test_deploying_a_build_again_makes_it_good_again(on_a: World) -> None:
    on_a.publish("b", SITE_B)
    on_a.publish("c", {**SITE, "c": b"c"})
    on_a.deploy("b")
    on_a.rollback()
    on_a.deploy("b")
    assert on_a.deploy("c").previous == "b"
    assert on_a.rollback().id == "b"


def test_a_put_back_leaves_previous_as_it_was(hooked: World) -> None:
    hooked.publish("0", SMALL_A)
    (hooked.here / "bad").unlink()
    hooked.deploy("0")
    hooked.deploy("a")
    (hooked.here / "bad").touch()
    with pytest.raises(PutBack):
        hooked.deploy("b")
    (hooked.here / "bad").unlink()

    assert hooked.rollback().id == "0"


def test_a_build_with_the_content_of_another_is_another_build(on_a: World) -> None:
    """CI ran twice for one commit: then rollback must still go to what was there before."""
    on_a.publish("b", SITE_B)
    on_a.publish("c", SITE)
    on_a.deploy("b")
    result = on_a.deploy("c")

    assert (result.live, result.previous, result.copied_files) == ("c", "b", 0)
    assert on_a.link == "releases/c.3"
    assert on_a.rollback().id == "b"


def test_rollback_to_a_named_build(on_a: World) -> None:
    for id in "bc":
        on_a.publish(id, {**SITE, id: b"x"})
        on_a.deploy(id)
    result = on_a.rollback(to="a")

    assert (result.live, on_a.link) == ("a", "releases/a.1")
    assert result.previous == "b"  # c was left by a rollback


# -- stopped and failed at every operation --------------------------------------------------------


@contextmanager
def fresh_copies(world: World) -> Iterator[Any]:
    """Everything as it is now, again and again."""
    for name in ("store", "www"):
        shutil.copytree(world.here / name, world.here / "saved" / name, symlinks=True)

    def restore() -> None:
        for name in ("store", "www"):
            shutil.rmtree(world.here / name)
            shutil.copytree(world.here / "saved" / name, world.here / name, symlinks=True)

    yield restore


def small(world: World, hooks: Mapping[str, object]) -> int:
    """A target on a small build a; how many operations a deploy of b takes."""
    world.publish("a", SMALL_A, hooks=hooks)
    world.publish("b", SMALL_B, hooks=hooks)
    world.deploy("a")
    shutil.copytree(world.here, world.here.with_name(world.here.name + ".x"), symlinks=True)
    counting = CountingDisk()
    world.deploy("b", disk=counting)
    for name in ("store", "www"):
        shutil.rmtree(world.here / name)
        (world.here.with_name(world.here.name + ".x") / name).rename(world.here / name)
    shutil.rmtree(world.here.with_name(world.here.name + ".x"))
    assert world.link == "releases/a.1"
    return counting.count


def whole(world: World) -> str:
    """The id of what is live, which must be whole."""
    with world.target() as target:
        id = str(target.live_id())
    assert problems(world.live, world.here / "src" / id) == ()
    return id


MORE_OR_SOME = [pytest.param(3, marks=pytest.mark.slow), 13]  # every step: tests/crash


@pytest.mark.parametrize("stride", MORE_OR_SOME)
def test_a_deploy_that_dies_anywhere_leaves_a_whole_release_and_can_be_repeated(
    world: World, stride: int
) -> None:
    steps = small(world, {})
    seen = set()
    with fresh_copies(world) as restore:
        for at in range(0, steps, stride):
            restore()
            with pytest.raises(Stopped):
                world.deploy("b", disk=(disk := StoppingDisk(at)))
            assert disk.fired
            seen.add(whole(world))
            result = world.deploy("b")
            assert (result.live, result.previous, whole(world)) == ("b", "a", "b")
            assert len(world.releases()) == 2
            assert not (world.inner / "deploying.json").exists()
            assert (world.record().current, world.record().deploying) == ("b", None)
            assert world.rollback().id == "a"
    assert seen == {"a", "b"}


@pytest.mark.parametrize("stride", MORE_OR_SOME)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_deploy_of_which_anything_fails_is_done_or_undone(
    world: World, code: int, stride: int
) -> None:
    steps = small(world, {"check": [{"run": ["true"]}]})
    undone = 0
    with fresh_copies(world) as restore:
        for at in range(0, steps, stride):
            restore()
            disk = FailingDisk(at, code)
            try:
                result = world.deploy("b", disk=disk)
                assert (result.live, whole(world)) == ("b", "b")
            except Error as error:
                live, (last, step) = whole(world), world.steps()[-1]
                undone += live == "a"
                assert live == "a" or (last, step) == ("b", "live"), disk.operations[at]
                assert error.live in (live, None), disk.operations[at]
            assert disk.fired
            assert (world.deploy("b").live, whole(world)) == ("b", "b")
            assert len(world.releases()) == 2
            assert world.rollback().id == "a"
    assert undone > 3


class AfterSwitch(CountingDisk):
    """Calls `happen` at each operation that comes after the switch."""

    switched = False

    def step(self, operation: str, path: AnyPath) -> None:
        super().step(operation, path)
        if self.switched:
            self.happen(operation)
        self.switched |= (operation, os.fsdecode(path)) == ("rename", "current")

    def happen(self, operation: str) -> None:
        raise Stopped("right after the switch")


def test_hooks_that_a_killed_deploy_still_owes_are_run_by_the_next(on_a: World) -> None:
    on_a.publish("b", SITE_B, hooks=every(on_a))
    with pytest.raises(Stopped):
        on_a.deploy("b", disk=AfterSwitch())
    assert on_a.link == "releases/b.2"
    assert [line.split()[0] for line in log(on_a)] == ["before_switch"]
    (on_a.here / "log").unlink()
    result = on_a.deploy("b")

    assert [line.split()[0] for line in log(on_a)] == ["before_switch", "after_switch", "check"]
    assert (result.live, result.previous) == ("b", "a")
    assert any("took over from a deploy of build b" in note for note in result.notes)


def test_a_release_that_was_never_checked_is_not_what_is_put_back_to_itself(
    hooked: World,
) -> None:
    with pytest.raises(Stopped):
        hooked.deploy("b", disk=AfterSwitch())
    assert hooked.link == "releases/b.2"
    with pytest.raises(PutBack) as caught:
        hooked.deploy("b")

    assert caught.value.live == "a"
    is_whole_a(hooked)


def test_a_rollback_right_after_a_killed_deploy_is_recorded(on_a: World) -> None:
    on_a.publish("b", SITE_B)
    with pytest.raises(Stopped):
        on_a.deploy("b", disk=AfterSwitch())
    on_a.rollback()

    assert on_a.link == "releases/a.1"
    assert on_a.steps()[-1] == ("a", "live")
    assert on_a.rows()[-1].left == "b"


class FullAfterSwitch(AfterSwitch):
    """Nothing can be written any more, only renamed and removed."""

    def happen(self, operation: str) -> None:
        if operation in ("write", "create"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_fills_up_at_the_switch_cannot_keep_the_old_release_away(
    on_a: World,
) -> None:
    on_a.publish("b", SITE_B)
    with pytest.raises(PutBack, match="No space") as caught:
        on_a.deploy("b", disk=FullAfterSwitch())

    assert caught.value.live == "a"
    assert on_a.link == "releases/a.1"


class InterruptedAtTheEnd(AfterSwitch):
    """Ctrl-C when the build has passed, and only `deploying.json` is still to be removed."""

    def happen(self, operation: str) -> None:
        if operation == "unlink":
            self.switched = False
            raise KeyboardInterrupt


def test_an_interrupt_at_the_end_says_that_the_new_build_is_live(on_a: World) -> None:
    on_a.publish("b", SITE_B)
    with pytest.raises(Interrupted, match="b is live on") as caught:
        on_a.deploy("b", disk=InterruptedAtTheEnd())

    assert (caught.value.exit_code, caught.value.live) == (130, "b")
    assert (on_a.link, on_a.steps()[-1]) == ("releases/b.2", ("b", "live"))


# -- three processes ------------------------------------------------------------------------------


class Clock(CountingDisk):
    ahead_s = 0

    def now(self) -> float:
        return super().now() + self.ahead_s


def prepare(world: World, id: str, disk: Disk | None = None, **options: Any) -> GoLive:
    with world.going_live(id, disk, **options) as go:
        go.prepare()
        return go


def switch(world: World, id: str, disk: Disk | None = None, **options: Any) -> GoLive:
    with world.going_live(id, disk, **options) as go:
        deploying = go.target.deploying()
        assert deploying is not None
        go.switch(deploying)
        return go


def check(world: World, id: str, **options: Any) -> None:
    with world.going_live(id, **options) as go:
        deploying = go.target.deploying()
        assert deploying is not None
        go.check(deploying)
        go.finish(deploying)


D1: dict[str, Any] = {"deployment": "d-1", "stage": "QA"}
D2: dict[str, Any] = {"deployment": "d-2", "stage": "PROD"}


def test_a_deployment_in_three_processes(on_a: World) -> None:
    on_a.publish("b", SITE_B, hooks=every(on_a))
    prepare(on_a, "b", **D1)
    assert (on_a.link, on_a.releases()) == ("releases/a.1", ["a.1", "b.2"])
    assert on_a.record().deploying == "b"
    switch(on_a, "b", **D1)
    assert on_a.link == "releases/b.2"
    check(on_a, "b", **D1)

    assert on_a.rows()[-1].deployment == "d-1"
    assert on_a.rows()[-1].stage == "QA"
    assert [line.split()[0] for line in log(on_a)] == ["before_switch", "after_switch", "check"]
    assert not (on_a.inner / "deploying.json").exists()
    assert (on_a.record().current, on_a.record().deploying) == ("b", None)


def test_a_younger_deployment_of_another_group_is_busy(on_a: World) -> None:
    on_a.publish("b", SITE_B)
    on_a.publish("c", SITE_B)
    prepare(on_a, "b", **D1)
    with pytest.raises(Conflict, match="deployment d-1 of build b is under way") as caught:
        prepare(on_a, "c", **D2)
    assert (caught.value.exit_code, caught.value.live) == (5, "a")
    with pytest.raises(Conflict, match="d-1"):
        on_a.deploy("c")
    switch(on_a, "b", **D1)
    check(on_a, "b", **D1)
    assert on_a.link == "releases/b.2"


def test_an_older_deployment_is_taken_over_and_reported(on_a: World) -> None:
    clock = Clock()
    on_a.publish("b", SITE_B, target={"deploy_timeout_s": 100})
    prepare(on_a, "b", clock, **D1)
    clock.ahead_s = 99
    with pytest.raises(Conflict):
        prepare(on_a, "b", clock, **D2)
    clock.ahead_s = 102
    go = prepare(on_a, "b", clock, **D2)

    assert go.outcome.notes == [
        "took over from deployment d-1 of build b that did not end (phase prepared)"
    ]
    switch(on_a, "b", **D2)
    check(on_a, "b", **D2)
    assert on_a.rows()[-1].deployment == "d-2"


def test_a_clock_that_was_set_back_does_not_block_for_ever(on_a: World) -> None:
    clock = Clock()
    clock.ahead_s = 10**6
    on_a.publish("b", SITE_B)
    prepare(on_a, "b", clock, **D1)
    assert on_a.deploy("b").live == "b"


def test_a_newer_deployment_of_the_same_group_takes_over_at_once(on_a: World) -> None:
    on_a.publish("b", SITE_B)
    on_a.publish("c", {**SITE, "c": b"c"})
    prepare(on_a, "b", **D1)
    prepare(on_a, "c", deployment="d-3", stage="QA")
    with on_a.going_live("b", **D1) as go:
        under_way = go.target.deploying()
        assert under_way is not None and under_way.deployment == "d-3"
    switch(on_a, "c", deployment="d-3", stage="QA")
    check(on_a, "c", deployment="d-3", stage="QA")

    assert on_a.link == "releases/c.3"
    assert on_a.releases() == ["a.1", "c.3"]


def test_what_a_killed_deploy_of_one_process_left_is_taken_over(on_a: World) -> None:
    on_a.publish("b", SITE_B)
    prepare(on_a, "b")
    result = on_a.deploy("b")

    assert (result.live, on_a.releases()) == ("b", ["a.1", "b.3"])
    assert any("took over from a deploy of build b" in note for note in result.notes)


def test_what_a_killed_deploy_left_is_removed_and_reported(on_a: World) -> None:
    on_a.publish("b", SITE_B)
    stops = iter(range(0, 1000, 5))
    while len(on_a.releases()) == 1:
        with pytest.raises(Stopped):
            on_a.deploy("b", disk=StoppingDisk(next(stops)))
    (left,) = [name for name in on_a.releases() if name.startswith("b.")]

    again = on_a.deploy("b")

    assert f"removed what an earlier run left: releases/{left}" in again.notes
    assert left not in on_a.releases()


def test_a_switch_is_refused_when_another_was_faster(on_a: World) -> None:
    on_a.publish("b", SITE_B)
    prepare(on_a, "b", **D1)
    (on_a.root / "elsewhere").mkdir()
    with on_a.target() as target:
        target.switch("elsewhere")
    with pytest.raises(Conflict, match="build b was overtaken") as caught:
        switch(on_a, "b", **D1)

    assert caught.value.exit_code == 5
    assert on_a.link == "elsewhere"
    assert on_a.steps() == [("a", "intended"), ("a", "live")]
    assert not (on_a.inner / "deploying.json").exists()


def test_a_failed_check_puts_back_only_what_is_still_its_own(on_a: World) -> None:
    on_a.publish("b", SITE_B, hooks=every(on_a, check="false"))
    prepare(on_a, "b", **D1)
    switch(on_a, "b", **D1)
    (on_a.root / "elsewhere").mkdir()
    with on_a.target() as target:
        target.switch("elsewhere")
    with pytest.raises(Conflict, match=r"something else is live.*check hook failed") as caught:
        check(on_a, "b", **D1)

    assert caught.value.exit_code == 5
    assert on_a.link == "elsewhere"


def test_a_switch_that_was_killed_in_its_hooks_is_done_again(on_a: World) -> None:
    """CodeDeploy may run an event again after its agent was restarted."""
    on_a.publish("b", SITE_B, hooks=every(on_a))
    prepare(on_a, "b", **D1)
    with pytest.raises(Stopped):
        switch(on_a, "b", AfterSwitch(), **D1)
    assert on_a.link == "releases/b.2"
    (on_a.here / "log").unlink()
    switch(on_a, "b", **D1)
    check(on_a, "b", **D1)

    assert [line.split()[0] for line in log(on_a)] == ["before_switch", "after_switch", "check"]
    assert on_a.rollback().id == "a"


# -- mode link ------------------------------------------------------------------------------------


@pytest.fixture
def linked(tree_world: World) -> World:
    """A target in mode link that serves a."""
    tree_world.publish("a", SITE, target={"mode": "link"})
    tree_world.publish("b", SITE_B, target={"mode": "link"})
    tree_world.deploy("a")
    return tree_world


def test_mode_link_serves_the_tree_in_the_store(linked: World) -> None:
    result = linked.deploy("b")

    assert linked.link == f"{linked.store}/builds/b/tree"
    assert (result.mode, result.verified_files, result.copied_files) == ("link", 7, 0)
    assert linked.releases() == []
    assert linked.rollback().live == "a"
    assert linked.link == f"{linked.store}/builds/a/tree"


def test_mode_link_with_a_relative_store_makes_a_link_that_leads_there(
    linked: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(linked.here)
    config = replace(linked.config, store="store")
    workflow.deploy(linked.bundle("b"), config=config, target="www", disk=linked.disk)

    assert linked.live == linked.store / "builds" / "b" / "tree"


def test_mode_link_deploys_what_is_live_again_without_a_row(linked: World) -> None:
    rows = linked.rows()
    linked.deploy("a")
    assert linked.rows() == rows


def test_mode_link_proves_again_when_the_switch_comes_late(linked: World) -> None:
    clock = Clock()
    prepare(linked, "b", clock, **D1)
    flip(linked.store / "builds" / "b" / "tree" / "index.html")
    clock.ahead_s = 11
    with pytest.raises(Mismatch) as caught:
        switch(linked, "b", clock, **D1)

    assert (caught.value.exit_code, caught.value.live) == (3, "a")
    assert caught.value.problems == (("index.html", "content differs"),)
    assert linked.link == f"{linked.store}/builds/a/tree"
    assert not (linked.inner / "deploying.json").exists()


def test_mode_copy_has_no_need_to_prove_again(on_a: World) -> None:
    on_a.publish("b", SITE_B)
    clock = Clock()
    prepare(on_a, "b", clock, **D1)
    (on_a.here / "store").rename(on_a.here / "gone")
    clock.ahead_s = 1000
    switch(on_a, "b", clock, **D1)
    (on_a.here / "gone").rename(on_a.here / "store")

    assert on_a.link == "releases/b.2"


def test_a_target_can_change_its_mode(linked: World) -> None:
    result = linked.deploy("b", mode="copy")
    assert linked.link == "releases/b.2"
    assert (result.copied_files, result.mode) == (7, "copy")
    assert linked.rollback().mode == "link"
    assert linked.link == f"{linked.store}/builds/a/tree"


def test_mode_link_runs_a_private_copy_of_the_build_s_program(linked: World) -> None:
    text = f"echo $0 $(pwd) >> {linked.here}/log"
    hooks = {"check": [{"run": ["./bin/check"]}]}
    linked.publish("c", {**SITE, "bin/check": script(text)}, target={"mode": "link"}, hooks=hooks)
    linked.deploy("c")
    ((program, folder),) = [line.split() for line in log(linked)]

    assert folder == f"{linked.store}/builds/c/tree"
    assert not program.startswith(str(linked.store))


def test_mode_link_does_not_run_a_program_that_was_changed_after_the_proof(
    linked: World,
) -> None:
    hooks = {"before_switch": [{"run": ["./bin/go"]}]}
    spec = {**SITE, "bin/go": script(f"touch {linked.here}/ran")}
    linked.publish("c", spec, target={"mode": "link"}, hooks=hooks)
    prepare(linked, "c", **D1)
    flip(linked.store / "builds" / "c" / "tree" / "bin" / "go")
    with pytest.raises(Mismatch, match=r"bin/go was changed in .*. It was not run"):
        switch(linked, "c", **D1)

    assert not (linked.here / "ran").exists()
    assert linked.link == f"{linked.store}/builds/a/tree"


def test_a_second_program_that_changes_current_in_between_wins(on_a: World) -> None:
    """The lock keeps moorline out; a hand does not ask for it."""
    on_a.publish("b", SITE_B, hooks=every(on_a))
    (on_a.root / "elsewhere").mkdir()

    def by_hand() -> None:
        (on_a.root / "current").unlink()
        (on_a.root / "current").symlink_to("elsewhere")

    counting = CountingDisk()
    with fresh_copies(on_a) as restore:
        on_a.deploy("b", disk=counting)
        restore()
    prepared = max(i for i, (name, path) in enumerate(counting.operations) if name == "clone")
    with pytest.raises(Conflict, match="overtaken"):
        on_a.deploy("b", disk=(disk := ActingDisk(prepared, by_hand)))

    assert disk.fired
    assert on_a.link == "elsewhere"
