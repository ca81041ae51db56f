"""The verbs, called as a program would call them: what they return, refuse and leave alone."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import CountingDisk, FailingDisk, ReadOnlyDisk, Stopped, StoppingDisk
from moorline import workflow
from moorline.build import Build, build_id
from moorline.config import Config, default_id
from moorline.errors import (
    ConfigError,
    Conflict,
    Error,
    HookFailed,
    Mismatch,
    NotFound,
    Problem,
    PutBack,
)
from moorline.results import PublishResult
from moorline.scan import scan
from moorline.settings import Hook
from moorline.verifying import verify
from trees import SITE, Content, snapshot, write_tree
from world import B, World, flip

SITE_B: dict[str, Content] = {**SITE, **B}
DISK = CountingDisk()


def problems(root: Path, source: Path) -> tuple[object, ...]:
    return verify(CountingDisk(), root, scan(CountingDisk(), source).manifest).problems


@pytest.fixture
def both(world: World) -> World:
    """Builds a and b; the target went from a to b."""
    world.publish("a")
    world.publish("b", SITE_B)
    world.deploy("a", stage="PROD")
    world.deploy("b", stage="PROD")
    return world


# -- init -----------------------------------------------------------------------------------------


def test_init_makes_a_store_and_a_file_once(here: Path) -> None:
    first = workflow.init(str(here / "s"), app="blog", layout="tree", folder=str(here), disk=DISK)
    text = (here / "moorline.toml").read_text()
    again = workflow.init(str(here / "s"), app="blog", layout="tree", folder=str(here), disk=DISK)

    assert (first.app, first.layout, first.store) == ("blog", "tree", str(here / "s"))
    assert (first.config_written, again.config_written) == (True, False)
    assert again.store_id == first.store_id
    assert (here / "moorline.toml").read_text() == text


def test_init_does_not_take_another_s_store(world: World) -> None:
    with pytest.raises(Conflict, match="already a store: of 'shop', layout pack"):
        workflow.init(str(world.store), app="blog", folder=str(world.here), disk=DISK)
    assert not (world.here / "moorline.toml").exists()


# -- publish --------------------------------------------------------------------------------------


def publish(world: World, source: Path, **options: Any) -> PublishResult:
    config = options.pop("config", world.config)
    return workflow.publish(
        str(source), **{"config": config, "disk": world.disk, "environment": {}, **options}
    )


def test_publish_tells_what_it_did(world: World, site: Path) -> None:
    first = publish(world, site, id="a", bundle=str(world.here / "a.zip"))
    write_tree(site, B)
    second = publish(world, site, id="b")

    assert (first.id, first.files, first.new_files, first.linked_files) == ("a", 6, 6, 0)
    files = [c for c in SITE.values() if isinstance(c, bytes | tuple)]
    assert first.bytes == sum(len(c if isinstance(c, bytes) else c[0]) for c in files)
    assert first.bundle_bytes == (world.here / "a.zip").stat().st_size <= 1000
    assert (second.files, second.new_files, second.new_bytes) == (7, 2, 16)
    assert (second.bundle, second.bundle_bytes, second.already) == (None, 0, False)
    assert first.digest != second.digest


def test_publishing_the_same_again_changes_nothing(world: World, site: Path) -> None:
    publish(world, site, id="a", bundle=str(world.here / "one"))
    before = snapshot(world.store)
    result = publish(world, site, id="a", bundle=str(world.here / "two"))

    assert (result.already, result.new_files, result.new_bytes) == (True, 0, 0)
    assert snapshot(world.store) == before
    for name in ("appspec.yml", "deploy.sh", "build.json"):
        assert (world.here / "two" / name).read_bytes() == (world.here / "one" / name).read_bytes()


def test_publishing_other_content_under_a_taken_id_is_refused(world: World, site: Path) -> None:
    publish(world, site, id="a")
    write_tree(site, B)
    with pytest.raises(Conflict, match="build a exists with other content") as caught:
        publish(world, site, id="a", bundle=str(world.here / "a.zip"))

    assert caught.value.exit_code == 5
    assert not (world.here / "a.zip").exists()


@pytest.mark.parametrize("hurt", [Path.unlink, flip, lambda path: path.write_text("{")])
def test_publishing_again_completes_the_ledger(
    world: World, site: Path, hurt: Callable[[Path], object]
) -> None:
    publish(world, site, id="a")
    record = world.store / "ledger" / "builds" / "a.json"
    before = Build.parse(record.read_bytes(), "a.json")
    hurt(record)
    publish(world, site, id="a")
    after = Build.parse(record.read_bytes(), "a.json")
    assert (after.id, after.digest) == (before.id, before.digest)
    assert record.read_bytes() == (world.store / "builds/a/build.json").read_bytes()


def test_linked_paths_are_replaced_and_said(world: World) -> None:
    uploads: dict[str, Content] = {**SITE, "up/old.png": b"old", ".env": b"X=1"}
    world.publish("a", uploads, target={"linked": ["up", ".env", "log/"]})
    assert world.published["a"].replaced == (".env", "log/", "up/")
    manifest = workflow.show("a", config=world.config, disk=DISK).manifest
    assert manifest.by_path[b"up"].target == b"../../shared/up"
    assert b"up/old.png" not in manifest.by_path


def test_linked_paths_in_layout_tree_need_a_root(tree_world: World, site: Path) -> None:
    config = tree_world.configured(target={"linked": ["up/"], "root": ""})
    with pytest.raises(ConfigError, match="need 'root' in the table"):
        publish(tree_world, site, id="a", config=config)


@pytest.mark.parametrize("id", ["", "../x", "a/b", "x" * 101, "a\n", "-a", "\u00e9"])
def test_a_bad_id_is_refused_before_anything_is_written(world: World, site: Path, id: str) -> None:
    before = snapshot(world.store)
    with pytest.raises(ConfigError, match="is not a build id"):
        publish(world, site, id=id)
    assert snapshot(world.store) == before


def test_a_bundle_that_is_too_large_is_refused_before_anything_is_written(
    world: World, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(world.store)
    monkeypatch.setattr("moorline.bundling.MAX_ZIP_BYTES", 300)
    with pytest.raises(Error, match="300 are allowed"):
        publish(world, site, id="a", bundle=str(world.here / "a.zip"))
    assert snapshot(world.store) == before


def test_another_application_s_store_is_refused(world: World, site: Path) -> None:
    with pytest.raises(ConfigError, match="belongs to application 'shop', not to 'blog'") as caught:
        publish(world, site, id="a", config=replace(world.config, app="blog"))
    assert caught.value.exit_code == 2


def test_without_a_store_every_verb_says_how_to_name_one(world: World, site: Path) -> None:
    config = Config()
    verbs: list[Callable[[], object]] = [
        lambda: publish(world, site, id="a", config=config),
        lambda: workflow.builds(config, disk=DISK),
        lambda: workflow.show("a", config=config, disk=DISK),
        lambda: workflow.status(config, disk=DISK),
        lambda: workflow.verify(config=config, id="a", disk=DISK),
        lambda: workflow.pin("a", config=config, reason="x", disk=DISK),
        lambda: workflow.deploy("a", config=config, target=str(world.root), disk=DISK),
    ]
    for verb in verbs:
        with pytest.raises(ConfigError, match=r"no store is named\. Give --store"):
            verb()
    assert not world.root.exists()


def test_a_read_only_store_can_be_deployed_from_but_not_published_to(
    both: World, site: Path
) -> None:
    with pytest.raises(Error, match="publish failed: Read-only file system"):
        publish(both, site, id="c", disk=ReadOnlyDisk())
    assert [line.build.id for line in workflow.builds(both.config, disk=ReadOnlyDisk())] == [
        "b",
        "a",
    ]


# -- the default id -------------------------------------------------------------------------------

COMMIT = {"CODEBUILD_RESOLVED_SOURCE_VERSION": "0123456789abcdef"}


@pytest.mark.parametrize(
    ("environment", "id"),
    [
        ({"CODEBUILD_BUILD_NUMBER": "41", **COMMIT}, "41-01234567"),
        ({"CODEBUILD_BUILD_NUMBER": "41"}, "41-dddddddd"),
        ({"CODEBUILD_BUILD_ID": "site:3f2a-91"}, "site-3f2a-91"),
        ({"CODEBUILD_BUILD_NUMBER": "", "CODEBUILD_BUILD_ID": ""}, "20231114-221320-dddddddd"),
        ({}, "20231114-221320-dddddddd"),
        (COMMIT, "20231114-221320-dddddddd"),
    ],
)
def test_the_default_id_comes_from_ci_or_from_time_and_content(
    environment: dict[str, str], id: str
) -> None:
    assert default_id(environment, "d" * 64, 1_700_000_000.9) == id
    assert build_id(id) == id


@given(st.integers(1, 10**9), st.floats(0, 4e9), st.from_regex(r"\A[0-9a-f]{40}\Z"))
def test_every_default_id_is_an_id(number: int, now: float, commit: str) -> None:
    for environment in ({}, {"CODEBUILD_BUILD_NUMBER": str(number)},
                        {"CODEBUILD_BUILD_NUMBER": str(number), **COMMIT},
                        {"CODEBUILD_BUILD_ID": f"my-site:{commit}"}):  # fmt: skip
        build_id(default_id(environment, commit, now))


def test_publish_uses_it(world: World, site: Path) -> None:
    result = publish(world, site, environment={"CODEBUILD_BUILD_NUMBER": "7", **COMMIT})
    assert result.id == "7-01234567"
    assert workflow.builds(world.config, disk=DISK)[0].build.revision == "0123456789abcdef"


# -- dry runs -------------------------------------------------------------------------------------


def test_dry_runs_change_nothing(both: World, site: Path) -> None:
    before = snapshot(both.here)
    published = publish(both, site, id="c", bundle=str(both.here / "c.zip"), dry_run=True)
    deployed = both.deploy("a", dry_run=True)
    by_id = both.deploy_id("a", dry_run=True)
    elsewhere = both.deploy("a", both.here / "new", dry_run=True)
    back = both.rollback(dry_run=True)

    assert snapshot(both.here) == before
    assert (published.id, published.files, published.digest) == ("c", 6, both.published["a"].digest)
    assert [result.id for result in (deployed, by_id, elsewhere, back)] == ["a"] * 4
    assert {result.live for result in (deployed, by_id, elsewhere, back)} == {None}
    assert elsewhere.target == str(both.here / "new")
    assert not (both.here / "new").exists()


def test_a_dry_run_meets_the_same_refusals(world: World) -> None:
    world.publish("a")
    world.deploy("a")
    with pytest.raises(NotFound, match="no release to go back to"):
        world.rollback(dry_run=True)
    with pytest.raises(NotFound):
        world.deploy_id("z", dry_run=True)
    with pytest.raises(ConfigError, match="is not a build id"):
        publish(world, world.here / "src" / "a", id="..", dry_run=True)


# -- deploy and rollback --------------------------------------------------------------------------


def test_a_deploy_tells_what_it_did(both: World) -> None:
    result = both.rollback()
    assert (result.id, result.live, result.mode, result.previous) == ("a", "a", "copy", None)
    assert (result.target, result.pinned) == (str(both.root), True)


def test_what_is_a_bundle_and_what_an_id(both: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(both.here / "bundles")
    deploy = workflow.deploy
    options: Any = {"config": both.config, "target": str(both.root), "disk": DISK}
    assert deploy("./a", **options).live == "a"  # a folder
    assert deploy("b", **options).live == "b"  # a folder too: there is one of that name
    monkeypatch.chdir(both.here)
    assert any("no bundle" in note for note in deploy("a", **options).notes)
    with pytest.raises(NotFound, match="nothing at"):
        deploy("none.zip", **options)
    with pytest.raises(ConfigError, match="is not a build id"):
        deploy("a b", **options)


def test_a_zip_and_the_folder_say_the_same(world: World, site: Path) -> None:
    publish(world, site, id="a", bundle=str(world.here / "a.zip"))
    result = workflow.deploy(
        str(world.here / "a.zip"), config=world.config, target=str(world.root), disk=DISK
    )
    assert (result.live, {row.source for row in world.rows()}) == ("a", {"bundle"})


def test_the_root_comes_from_flag_configuration_or_settings(both: World) -> None:
    bundle = both.bundle("a")
    named = replace(both.config, target=str(both.here / "named"))
    assert workflow.deploy(bundle, config=named, disk=DISK).target == str(both.here / "named")
    bare = Config(store=str(both.store))
    assert workflow.deploy(bundle, config=bare, disk=DISK).target == str(both.root)
    with pytest.raises(ConfigError, match="no target is named"):
        workflow.deploy("a", config=bare, disk=DISK)


def test_a_stage_has_a_root_of_its_own(world: World) -> None:
    world.publish("a", SITE, groups={"QA": {"root": f"{world.here}/qa"}})
    options: Any = {"config": world.config, "disk": DISK}
    workflow.deploy(world.bundle("a"), stage="QA", **options)
    assert (world.here / "qa" / "current").is_symlink()
    with pytest.raises(NotFound, match=f"no release to go back to|{world.here}/qa"):
        workflow.rollback(stage="QA", **options)


def test_one_more_check_can_be_asked_for(both: World) -> None:
    with pytest.raises(PutBack):
        both.deploy("a", checks=[Hook(run=("false",))])
    assert both.link == "releases/b.2"
    with pytest.raises(HookFailed):
        both.deploy("b", checks=[Hook(run=("false",))])
    assert both.deploy("a", checks=[Hook(run=("true",))]).live == "a"
    assert both.deploy("b").live == "b"  # it was for that one deploy


def test_rollback_to_a_build_that_this_target_never_had(both: World) -> None:
    both.publish("c", {**SITE, "c": b"c"})
    with pytest.raises(ConfigError, match="--trust-store"):
        both.rollback(to="c")
    result = both.rollback(to="c", trust_store=True)
    assert result.live == "c"
    assert both.rows()[-1].reason == "rollback"
    assert any("no bundle vouches" in n or "only the ledger" in n for n in result.notes)


def test_rollback_of_what_is_no_target(world: World) -> None:
    with pytest.raises(NotFound, match="no target at"):
        world.rollback()
    assert not world.root.exists()


def test_a_busy_target_is_waited_for_a_minute(both: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("moorline.target.time.monotonic", lambda: clock[0])

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr("moorline.target.time.sleep", sleep)
    with both.target() as target, target.lock():
        with pytest.raises(Conflict, match="has held it for 60 s"):
            both.deploy("a")
        with pytest.raises(Conflict, match="has held it for 60 s") as caught:
            both.rollback()
    assert caught.value.exit_code == 5
    assert both.link == "releases/b.2"


# -- looking --------------------------------------------------------------------------------------


def test_builds_are_listed_newest_first_with_where_they_are_live(both: World) -> None:
    workflow.pin("a", config=both.config, reason="audit", disk=DISK)
    newest, oldest = workflow.builds(both.config, disk=DISK)

    assert (newest.build.id, newest.present, newest.live_on, newest.pins) == (
        "b", True, ("PROD",), (),
    )  # fmt: skip
    assert (oldest.build.id, oldest.live_on, oldest.pins) == ("a", (), ("audit",))


def test_a_build_that_is_gone_is_remembered(both: World) -> None:
    shutil.rmtree(both.store / "builds" / "a")
    found = {line.build.id: line.present for line in workflow.builds(both.config, disk=DISK)}
    assert found == {"a": False, "b": True}


@pytest.mark.parametrize("layout_name", ["pack", "tree"])
def test_show_tells_one_build(here: Path, layout_name: str) -> None:
    world = World(here, layout_name)
    world.publish("a")
    world.publish("b", SITE_B)
    shown = workflow.show("b", config=world.config, disk=DISK)

    assert (shown.line.build.id, shown.path) == ("b", f"{world.store}/builds/b")
    assert shown.manifest.digest == world.published["b"].digest
    assert len(shown.packs) == {"pack": 2, "tree": 0}[layout_name]


def test_an_unknown_build_has_a_neighbour(both: World) -> None:
    both.publish("release-7")
    for verb in (
        lambda: workflow.show("relase-7", config=both.config, disk=DISK),
        lambda: workflow.diff("a", "relase-7", config=both.config, disk=DISK),
        lambda: workflow.export("relase-7", "x", config=both.config, disk=DISK),
        lambda: workflow.pin("relase-7", config=both.config, reason="x", disk=DISK),
        lambda: workflow.verify(config=both.config, id="relase-7", disk=DISK),
    ):
        with pytest.raises(NotFound, match=r"Did you mean release-7\?") as caught:
            verb()
        assert caught.value.exit_code == 4


def test_diff_tells_what_changed(both: World) -> None:
    found = workflow.diff("a", "b", config=both.config, disk=DISK)
    assert [entry.shown for entry in found.added] == ["new.txt"]
    assert [(old.size, new.size) for old, new in found.changed] == [(12, 13)]
    assert not workflow.diff("a", "a", config=both.config, disk=DISK)


def test_pins_come_and_go(both: World) -> None:
    made = workflow.pin("a", config=both.config, reason="audit", disk=DISK)
    assert (made.id, made.reason, bool(made.by)) == ("a", "audit", True)
    assert workflow.unpin("a", config=both.config, disk=DISK) == 1
    assert workflow.unpin("a", config=both.config, disk=DISK) == 0
    with pytest.raises(ConfigError, match="a pin needs a reason"):
        workflow.pin("a", config=both.config, reason=" ", disk=DISK)


def test_status_is_what_each_target_said_last(both: World) -> None:
    both.deploy("a", both.here / "qa", stage="QA")
    found = [(t.stage, t.current, t.previous) for t in workflow.status(both.config, disk=DISK)]
    assert found == [("PROD", "b", "a"), ("QA", "a", None)]


def test_history_is_all_rows_oldest_first(both: World) -> None:
    found = [(row.id, row.step) for row in workflow.history(str(both.root), disk=DISK)]
    assert found == [("a", "intended"), ("a", "live"), ("b", "intended"), ("b", "live")]


# -- pins -----------------------------------------------------------------------------------------


def test_a_pin_steps_back_from_a_build_that_is_being_removed(both: World) -> None:
    """As a deploy does: the removal may have read the pins already."""
    with both.ledger() as ledger:
        token = ledger.begin_removing(build_id("b"), "a test", 1)
        with pytest.raises(Conflict, match="is being removed"):
            workflow.pin("b", config=both.config, reason="the audit", disk=DISK)
        assert ledger.pins() == []
        ledger.end_removing(build_id("b"), token)
        workflow.pin("b", config=both.config, reason="the audit", disk=DISK)
        assert [pin.id for pin in ledger.pins()] == ["b"]


# -- export ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout_name", ["pack", "tree"])
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_an_export_equals_the_source(here: Path, layout_name: str, umask: int) -> None:
    world = World(here, layout_name)
    odd: dict[str, Content] = {
        **SITE_B, "\udcff\n": b"odd", "d/e": (b"x", 0o400), "d/l": "../index.html",
        "hollow/x": None,
    }  # fmt: skip
    world.publish("a")
    world.publish("b", odd)
    old = os.umask(umask)
    try:
        result = workflow.export("b", str(here / "out"), config=world.config, disk=DISK)
    finally:
        os.umask(old)

    source = scan(DISK, here / "src" / "b").manifest
    assert scan(DISK, here / "out").manifest == source
    assert (result.files, result.bytes) == (len(source.files), source.size_bytes)
    assert world.published["b"].digest == source.digest


def test_an_export_does_not_write_into_what_is_there(both: World) -> None:
    (both.here / "out").mkdir()
    with pytest.raises(ConfigError, match="Name a new folder for the export"):
        workflow.export("a", str(both.here / "out"), config=both.config, disk=DISK)
    assert list((both.here / "out").iterdir()) == []


def test_half_an_export_never_has_its_name(both: World) -> None:
    source, out = scan(DISK, both.here / "src" / "b").manifest, both.here / "out"
    whole = CountingDisk()
    workflow.export("b", str(both.here / "first"), config=both.config, disk=whole)
    for at in range(whole.count):
        with pytest.raises(Stopped):
            workflow.export("b", str(out), config=both.config, disk=StoppingDisk(at))
        if out.exists():
            assert scan(DISK, out).manifest == source
            shutil.rmtree(out)


def test_a_damaged_build_is_not_exported(both: World) -> None:
    for pack in (both.store / "packs").iterdir():
        flip(pack, 0)
    with pytest.raises(Mismatch):
        workflow.export("b", str(both.here / "out"), config=both.config, disk=DISK)
    assert not (both.here / "out").exists()


# -- verify ---------------------------------------------------------------------------------------


def test_verify_reads_a_build_or_all_of_them(both: World) -> None:
    (one,) = workflow.verify(config=both.config, id="b", disk=DISK)
    assert (one.id, one.ok, one.problems, one.files) == ("b", True, (), 7)
    assert one.where == f"{both.store}/builds/b"
    every = workflow.verify(config=both.config, everything=True, disk=DISK)
    assert [(found.id, found.ok) for found in every] == [("a", True), ("b", True)]


def test_verify_of_all_goes_on_after_what_is_damaged(both: World) -> None:
    flip(both.store / "builds" / "a" / "manifest.gz")
    (both.store / "builds" / "b" / "build.json").write_text("{")
    both.publish("c")
    every = workflow.verify(config=both.config, everything=True, disk=DISK)
    assert [(found.id, found.ok) for found in every] == [("a", False), ("b", False), ("c", True)]
    assert all(found.problems for found in every[:2])


def test_verify_of_a_target_lists_all_that_differs_and_names_the_cure(both: World) -> None:
    flip(both.live / "index.html")
    (both.live / "css" / "site.css").unlink()
    (both.live / "cache").mkdir()
    (both.live / "cache" / "x").write_text("x")
    (both.live / "app.log").write_text("x")
    (found,) = workflow.verify(config=both.config, target=str(both.root), disk=DISK)

    assert (found.id, found.ok, found.where) == ("b", False, str(both.root))
    assert found.problems == (
        Problem("app.log", 'extra file (if the application writes it: linked = ["app.log"])'),
        Problem("cache", 'extra directory (if the application writes it: linked = ["cache/"])'),
        Problem("css/site.css", "missing"),
        Problem("index.html", "content differs"),
    )


def test_verify_of_a_whole_target(both: World) -> None:
    (found,) = workflow.verify(config=Config(), target=str(both.root), disk=DISK)
    assert (found.ok, found.files) == (True, 7)


def test_verify_of_a_target_that_serves_nothing_known(both: World) -> None:
    with both.target() as target:
        target.switch("elsewhere")
    with pytest.raises(NotFound, match=r"nothing is live .* that its history knows"):
        workflow.verify(config=both.config, target=str(both.root), disk=DISK)


# -- errors ---------------------------------------------------------------------------------------


def test_an_error_of_the_disk_names_the_verb_the_path_and_a_cure(both: World) -> None:
    with pytest.raises(Error, match=r"status failed: Input/output error.*Look at the system log"):
        workflow.status(both.config, disk=FailingDisk(0, errno.EIO, "names"))


def test_a_record_for_other_programs_is_plain_json(both: World) -> None:
    record = json.loads(next((both.store / "ledger/targets").iterdir()).read_text())
    assert (record["current"], record["previous"], record["stage"]) == ("b", "a", "PROD")
