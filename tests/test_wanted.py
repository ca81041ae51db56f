"""What is to go live, and who vouches for it: a bundle, the ledger, or a target's own history."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import Any

import pytest

from fakes import CountingDisk
from moorline import wanted
from moorline.build import BuildId
from moorline.bundle import read_bundle
from moorline.config import Config
from moorline.errors import ConfigError, Mismatch, NotFound
from moorline.settings import HostPolicy, Settings
from moorline.wanted import Wanted, from_bundle, from_ledger, host_policy
from trees import SITE, Content
from world import B, World, flip

SITE_B: dict[str, Content] = {**SITE, **B}
DISK = CountingDisk()
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


# -- the host's own file --------------------------------------------------------------------------


def test_a_host_without_a_file_restricts_nothing(world: World) -> None:
    assert host_policy(DISK) == HostPolicy()


def test_the_host_s_file_is_read(world: World) -> None:
    path = world.here / "etc-moorline.toml"
    path.write_text('# by hand\nstore = "/mnt/x"\nroots = ["/srv"]\nmodes = ["copy"]\n')
    assert host_policy(DISK) == HostPolicy("/mnt/x", ("/srv",), (), ("copy",))


@pytest.mark.parametrize("text", ["stor = '/x'", "[target]", "roots = /srv", 'users = "x"', "\0"])
def test_a_mistake_in_the_host_s_file_is_not_passed_over(world: World, text: str) -> None:
    (world.here / "etc-moorline.toml").write_text(text)
    with pytest.raises(ConfigError, match="etc-moorline"):
        host_policy(DISK)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o777])
def test_a_host_s_file_that_others_can_write_is_refused(world: World, mode: int) -> None:
    path = world.here / "etc-moorline.toml"
    path.write_text('store = "/mnt/x"')
    path.chmod(mode)
    with pytest.raises(ConfigError, match="must belong to root and be writable by nobody else"):
        host_policy(DISK)


@as_root
def test_a_host_s_file_of_another_user_is_refused(world: World) -> None:
    path = world.here / "etc-moorline.toml"
    path.write_text('store = "/mnt/x"')
    os.chown(path, 65534, 65534)
    with pytest.raises(ConfigError, match="must belong to root") as caught:
        host_policy(DISK)
    assert caught.value.exit_code == 2


# -- a bundle -------------------------------------------------------------------------------------


def bundled(world: World, id: str = "a", **options: Any) -> Wanted:
    return from_bundle(
        DISK, read_bundle(DISK, world.bundle(id)), store=str(world.store), **options
    )  # fmt: skip


def test_a_bundle_pins_build_settings_and_agent(world: World) -> None:
    world.publish("a", SITE, hooks={"check": [{"run": ["true"]}]})
    found = bundled(world)

    assert (found.id, found.digest) == ("a", world.published["a"].digest)
    assert (found.source, found.reason, found.mode) == ("bundle", "deploy", "copy")
    assert [hook.run for hook in found.settings.check] == [("true",)]
    assert found.settings_digest == found.settings.digest
    assert (world.store / "agent" / f"{found.agent}.pyz").is_file()
    assert found.group == ""


def test_who_asks_wins_over_the_settings(world: World) -> None:
    world.publish("a", SITE, target={"root": "/srv/a", "mode": "link"})
    assert (bundled(world).settings.root, bundled(world).mode) == ("/srv/a", "link")
    found = bundled(world, root="/srv/b", mode="copy")
    assert (found.settings.root, found.mode) == ("/srv/b", "copy")


def test_a_stage_has_its_own_settings(world: World) -> None:
    groups = {"QA": {"root": "/srv/qa", "keep_releases": 5, "hooks": {"check": []}}}
    world.publish("a", SITE, hooks={"check": [{"run": ["true"]}]}, groups=groups)
    qa, prod = bundled(world, stage="QA"), bundled(world, stage="PROD")

    assert (qa.settings.root, qa.settings.keep_releases, qa.settings.check) == ("/srv/qa", 5, ())
    assert prod.settings.root == str(world.root)
    assert len(prod.settings.check) == 1
    assert (qa.stage, qa.group) == ("QA", "")
    assert bundled(world, stage="QA", deployment="d-1").group == "QA"


def test_settings_are_looked_for_on_the_target_first(world: World) -> None:
    world.publish("a")
    world.deploy("a")
    shutil.rmtree(world.store)
    for options in ({"root": str(world.root)}, {"kept_at": str(world.root)}):
        assert bundled(world, **options).settings.root == str(world.root)
    with pytest.raises(NotFound):
        bundled(world)


def test_changed_settings_are_refused(world: World) -> None:
    world.publish("a")
    (path,) = (world.store / "settings").iterdir()
    flip(path, 20)
    with pytest.raises(Mismatch, match="its SHA-256 is not the one in the bundle") as caught:
        bundled(world)
    assert caught.value.exit_code == 3


def test_missing_settings_say_how_to_get_them(world: World) -> None:
    world.publish("a")
    shutil.rmtree(world.store / "settings")
    (world.store / "settings").mkdir()
    with pytest.raises(NotFound, match="Publish the same build again"):
        bundled(world)


# -- the ledger -----------------------------------------------------------------------------------


def by_id(world: World, id: str = "a", **options: str) -> Wanted:
    settings = world.config.settings
    return from_ledger(DISK, BuildId(id), store=str(world.store), settings=settings, **options)


def test_the_ledger_says_what_a_build_is_but_only_the_share_vouches_for_it(world: World) -> None:
    world.publish("a", SITE, hooks={"check": [{"run": ["true"]}]})
    found = by_id(world)

    assert (found.digest, found.source) == (world.published["a"].digest, "share")
    assert (found.settings.app, len(found.settings.check)) == ("shop", 1)
    assert found.settings_digest == found.settings.digest
    assert found.agent == ""


def test_a_build_that_only_the_store_knows(world: World) -> None:
    world.publish("a")
    shutil.rmtree(world.store / "ledger" / "builds")
    assert by_id(world).digest == world.published["a"].digest


def test_a_build_that_nobody_knows(world: World) -> None:
    world.publish("a")
    with pytest.raises(NotFound, match="no build z"):
        by_id(world, "z")


def test_a_ledger_and_a_store_that_disagree_are_a_mismatch(world: World) -> None:
    world.publish("a")
    world.publish("b", SITE_B)
    ledger = world.store / "ledger" / "builds"
    text = (ledger / "a.json").read_text()
    real, other = (world.published[id].digest for id in "ab")
    (ledger / "a.json").write_text(text.replace(real, other))
    with pytest.raises(Mismatch, match="manifest of build a"):
        world.deploy_id("a")
    assert world.releases() == []


def test_a_deploy_by_id_says_so(world: World) -> None:
    world.publish("a")
    result = world.deploy_id("a")

    assert result.live == "a"
    assert "only the ledger on the share vouches for this content, no bundle" in result.notes
    assert {row.source for row in world.rows()} == {"share"}
    assert not any("only the ledger" in note for note in world.deploy("a").notes)


def test_a_rollback_to_a_deploy_by_id_runs_its_hooks(world: World) -> None:
    hook = {"run": ["sh", "-c", f"echo $MOORLINE_ID >> {world.here}/log"]}
    world.publish("a", SITE, hooks={"after_switch": [hook]})
    world.deploy_id("a")
    world.publish("b", SITE_B)
    world.deploy_id("b")
    world.rollback()
    assert (world.here / "log").read_text() == "a\na\n"


# -- a target's history ---------------------------------------------------------------------------


def test_a_rollback_takes_all_from_the_history(world: World) -> None:
    world.publish("a", SITE, target={"keep_releases": 7})
    world.deploy("a", stage="PROD")
    shutil.rmtree(world.store)
    with world.target() as target:
        (row,) = [row for row in target.history() if row.step == "live"]
        found = wanted.from_history(target, row, store="")

    assert (found.id, found.digest, found.source) == ("a", row.digest, "bundle")
    assert (found.reason, found.stage, found.settings.keep_releases) == ("rollback", "PROD", 7)
    assert (found.settings_digest, found.agent) == (row.settings, row.agent)


@pytest.mark.parametrize("hurt", ["missing", "changed", "rubbish"])
def test_a_history_whose_settings_are_lost_says_so(world: World, hurt: str) -> None:
    world.publish("a")
    world.publish("b", SITE_B)
    world.deploy("a")
    world.deploy("b")
    for path in (world.inner / "settings").iterdir():
        if hurt == "missing":
            path.unlink()
        else:
            text = path.read_text().replace('"store_wait_s":0', '"store_wait_s":1')
            path.write_text(text if hurt == "changed" else "rubbish")
    world.config = Config(app="shop")
    with pytest.raises(NotFound, match="the settings of build a are missing") as caught:
        world.rollback()
    assert (caught.value.live, world.link) == ("b", "releases/b.2")


def test_lost_settings_are_taken_from_a_store_that_is_named(world: World) -> None:
    world.publish("a")
    world.publish("b", SITE_B)
    world.deploy("a")
    world.deploy("b")
    for path in (world.inner / "settings").iterdir():
        path.unlink()
    (pinned,) = (world.store / "settings").iterdir()
    text = pinned.read_bytes()
    flip(pinned, 20)
    with pytest.raises(Mismatch, match="its SHA-256 is not the one"):
        world.rollback()
    pinned.write_bytes(text)
    assert world.rollback().live == "a"


def test_on_a_target_that_had_bundles_the_share_s_word_needs_to_be_trusted(world: World) -> None:
    world.publish("a")
    world.publish("b", SITE_B)
    world.deploy_id("a")
    world.deploy("b")
    with pytest.raises(ConfigError, match="--trust-store") as caught:
        world.rollback()

    assert (caught.value.exit_code, caught.value.live) == (2, "b")
    assert world.link == "releases/b.2"
    assert world.rollback(trust_store=True).live == "a"


def test_on_a_target_that_never_had_a_bundle_it_is_all_there_is(world: World) -> None:
    world.publish("a")
    world.publish("b", SITE_B)
    world.deploy_id("a")
    world.deploy_id("b")
    assert world.rollback().live == "a"


def test_a_row_from_before_settings_were_kept_has_none(world: World) -> None:
    world.publish("a")
    world.deploy("a")
    with world.target() as target:
        bare = replace(target.history()[-1], settings="")
        assert wanted.from_history(target, bare, store="").settings == Settings()
