"""The ledger: small records, each replaced whole."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import CountingDisk, FailingDisk, Stopped, StoppingDisk
from moorline.build import Build, BuildId, Pin, TargetRecord
from moorline.errors import ConfigError
from moorline.founding import init_store
from moorline.ledger.directory import DirectoryLedger
from moorline.store import open_store
from world import World

DIGEST = "d1" * 32


def build(id: str, sequence: int) -> Build:
    return Build(BuildId(id), DIGEST, 100, sequence, "0" * 16, 1_700_000_000 + sequence, 3, 30)


def record(target: str, **fields: str | None) -> TargetRecord:
    root = f"/srv/{target}"
    return TargetRecord(target, root, "host", 1_700_000_000, **fields)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    init_store(CountingDisk(), tmp_path / "store", app="shop").close()
    return tmp_path / "store"


@pytest.fixture
def ledger(store: Path) -> Iterator[DirectoryLedger]:
    with open_store(CountingDisk(), store) as opened:
        yield DirectoryLedger(opened.disk, opened.root)


def test_an_empty_ledger_knows_nothing(ledger: DirectoryLedger) -> None:
    assert [*ledger.builds(), *ledger.targets(), *ledger.pins()] == []
    assert ledger.removing() == set()
    assert ledger.build(BuildId("a")) is None
    assert ledger.target("t") is None
    assert not ledger.remove_pin(BuildId("a"))


def test_builds_come_back_in_the_order_of_their_sequence(ledger: DirectoryLedger) -> None:
    for one in (build("b", 9), build("a", 10), build("c", 2)):
        ledger.write_build(one)
    assert [one.id for one in ledger.builds()] == ["c", "b", "a"]
    assert ledger.build(BuildId("b")) == build("b", 9)


def test_a_target_s_record_is_replaced_whole(ledger: DirectoryLedger, store: Path) -> None:
    ledger.write_target(record("t1", current="a", deploying="b"))
    ledger.write_target(record("t1", current="b", previous="a"))
    ledger.write_target(record("t0", stage="PROD"))

    assert ledger.target("t1") == record("t1", current="b", previous="a")
    assert [one.target for one in ledger.targets()] == ["t1", "t0"]  # by stage, host, root
    assert sorted(path.name for path in (store / "ledger/targets").iterdir()) == [
        "t0.json", "t1.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "pins"),
    [
        ({}, []),
        ({"current": "a"}, ["a"]),
        ({"current": "a", "previous": "b", "deploying": "c"}, ["a", "b", "c"]),
    ],
)
def test_what_a_target_says_pins_its_builds(fields: dict[str, str], pins: list[str]) -> None:
    assert record("t", **fields).pins() == pins


def test_pins_of_people(ledger: DirectoryLedger) -> None:
    first, second = (Pin(BuildId("a"), reason, "me", 5) for reason in ("audit", "demo"))
    ledger.write_pin(first)
    ledger.write_pin(second)
    ledger.write_pin(Pin(BuildId("B"), "x", "", 1))

    assert ledger.pins() == [Pin(BuildId("B"), "x", "", 1), second]
    assert ledger.remove_pin(BuildId("a"))
    assert not ledger.remove_pin(BuildId("a"))
    assert [pin.id for pin in ledger.pins()] == ["B"]


def test_what_prune_is_about_to_remove(ledger: DirectoryLedger, store: Path) -> None:
    token = ledger.begin_removing(BuildId("a"), "old", 1)
    other = ledger.begin_removing(BuildId("a"), "old", 1)
    ledger.begin_removing(BuildId("b.json"), "old", 1)
    (store / "ledger/removing/.c.json.0123456789abcdef.tmp").write_text("")
    assert ledger.removing() == {"a", "b.json"}
    ledger.end_removing(BuildId("a"), token)
    assert ledger.removing() == {"a", "b.json"}  # each has its own announcement
    ledger.end_removing(BuildId("a"), other)
    assert ledger.removing() == {"b.json"}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\0"])
@pytest.mark.parametrize("folder", ["builds", "targets", "pins"])
def test_a_record_that_cannot_be_read_is_an_error_because_it_may_be_a_pin(
    ledger: DirectoryLedger, store: Path, folder: str, text: str
) -> None:
    ledger.write_build(build("a", 1))
    ledger.write_target(record("a"))
    ledger.write_pin(Pin(BuildId("a"), "x", "", 1))
    (store / "ledger" / folder / "z.json").write_text(text)

    with pytest.raises(ConfigError, match=rf"ledger/{folder}/z\.json"):
        getattr(ledger, folder)()


def test_temporary_and_other_names_are_no_records(ledger: DirectoryLedger, store: Path) -> None:
    ledger.write_build(build("a", 1))
    for name in (".a.json.0123456789abcdef.tmp", ".hidden.json", "README", "a.json~"):
        (store / "ledger/builds" / name).write_text("rubbish")
    assert [one.id for one in ledger.builds()] == ["a"]


def test_a_folder_that_is_something_else_is_an_error(ledger: DirectoryLedger, store: Path) -> None:
    (store / "ledger/pins").write_text("")
    with pytest.raises(ConfigError, match="ledger/pins is no folder"):
        ledger.pins()


def test_a_folder_that_is_a_link_is_not_followed(ledger: DirectoryLedger, store: Path) -> None:
    (store / "elsewhere").mkdir()
    (store / "ledger/targets").symlink_to(store / "elsewhere")
    with pytest.raises(OSError, match="Not a directory"):
        ledger.write_target(record("t"))
    assert list((store / "elsewhere").iterdir()) == []


def test_a_record_that_is_removed_while_all_are_read_is_passed_over(
    ledger: DirectoryLedger, store: Path
) -> None:
    ledger.write_build(build("a", 1))
    ledger.write_build(build("b", 2))
    found = ledger._read_all(b"builds")
    next(found)
    (store / "ledger/builds/b.json").unlink()
    assert list(found) == []


def test_a_write_that_is_stopped_anywhere_leaves_the_old_record_or_the_new(store: Path) -> None:
    old, new = record("t", current="a"), record("t", current="b")
    seen = set()
    for at in range(100):
        disk = StoppingDisk(10**6)
        with open_store(disk, store) as opened:
            ledger = DirectoryLedger(disk, opened.root)
            ledger.write_target(old)
            disk.at = disk.count + at
            try:
                ledger.write_target(new)
            except Stopped:
                with open_store(CountingDisk(), store) as again:
                    found = DirectoryLedger(again.disk, again.root).targets()
                assert found in ([old], [new])
                seen.add(found[0].current)
                continue
        break
    assert seen == {"a", "b"}
    assert not disk.fired


def test_a_write_that_fails_is_an_error(store: Path) -> None:
    disk = FailingDisk(0, errno.EDQUOT, "write")
    with open_store(CountingDisk(), store) as opened:
        ledger = DirectoryLedger(disk, opened.root)
        with pytest.raises(OSError, match="quota"):
            ledger.write_target(record("t"))
        assert disk.fired
        assert ledger.targets() == []


def test_two_targets_have_two_records(world: World) -> None:
    world.publish("a")
    world.deploy("a", stage="QA")
    world.deploy("a", world.here / "other", stage="PROD")
    with world.ledger() as ledger:
        found = ledger.targets()

    assert [(one.stage, one.root, one.current) for one in found] == [
        ("PROD", str(world.here / "other"), "a"), ("QA", str(world.root), "a"),
    ]  # fmt: skip
    assert len({one.target for one in found}) == 2
