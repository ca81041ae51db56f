"""sequence/ gives order and time to all builds, and everybody who can write the share can write it:
no publish is stopped by what stands there without saying which file it is.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from counts import Count
from crash.scenarios import SPECS, clean
from hostile.attacks import ON_ANYTHING, ON_FILES, Outside
from moorline import workflow
from moorline.build import MOST_SECONDS, MOST_SEQUENCE
from moorline.disk import Disk
from moorline.errors import Mismatch
from world import World

WAYS = {**ON_ANYTHING, **ON_FILES}
NUMBERS = ("1", "2", "3", "7", str(MOST_SEQUENCE - 9), str(MOST_SEQUENCE + 1), "9" * 18, "9" * 200)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["pack", "tree"])
def test_whatever_stands_in_sequence_publishes_go_on(
    layout: str, here: Path, outside: Outside, count: Count
) -> None:
    for turn, number in enumerate(NUMBERS):
        for way in list(WAYS)[turn % 4 :: 4]:
            world = World(here / f"{turn}-{way.replace(' ', '-')}", layout)
            world.publish("a", SPECS["a"])
            ticket = world.store / "sequence" / number
            ticket.touch()
            WAYS[way](ticket, outside.folder)
            for id in ("b", "c"):
                world.publish(id, SPECS[id])
                assert world.deploy(id, disk=Disk()).live == id
            world.publish("a", SPECS["a"])  # its record may be one file with the ticket
            found = workflow.builds(config=world.config)
            order = [line.build.id for line in sorted(found, key=lambda line: line.build.sequence)]
            assert [id for id in order if id in "bc"] == ["b", "c"], f"{number} is {way}"
            clean(2_000_000)(world, Disk())
            assert outside.unharmed(), f"{number} is {way}"
            count.add("attacks on the order of builds")


@pytest.mark.parametrize("number", [str(n) for n in ("00", "01", "-1", "+1", "1.5", "x", "\u0661")])
def test_a_name_that_is_no_number_is_passed_over(number: str, here: Path, count: Count) -> None:
    world = World(here)
    (world.store / "sequence" / number).touch()
    world.publish("a", SPECS["a"])
    assert (world.store / "sequence" / "1").exists()
    count.add("attacks on the order of builds")


@pytest.mark.parametrize("number", [str(MOST_SEQUENCE + 1), "9" * 18, "9" * 19, "9" * 200])
def test_a_number_that_no_publish_gave_is_passed_over(
    number: str, here: Path, count: Count
) -> None:
    world = World(here)
    world.publish("a", SPECS["a"])
    (world.store / "sequence" / number).touch()
    for id in ("b", "c"):
        world.publish(id, SPECS[id])
    assert (world.store / "sequence" / "3").exists()
    count.add("attacks on the order of builds")


@pytest.mark.parametrize(("field", "value", "number"), [
    ("sequence", MOST_SEQUENCE, MOST_SEQUENCE),
    ("created", MOST_SECONDS, 2),
])  # fmt: skip
def test_what_leaves_nothing_behind_it_is_named(
    field: str, value: int, number: int, here: Path, count: Count
) -> None:
    """The last number, or the last second. Removing that file is all it takes."""
    world = World(here)
    world.publish("a", SPECS["a"])
    fields = json.loads((world.store / "sequence" / "1").read_bytes())
    ticket = world.store / "sequence" / str(number)
    ticket.write_text(json.dumps({**fields, "sequence": number, field: value}))

    with pytest.raises(Mismatch, match=f"sequence/{number} .* Remove that file") as refused:
        world.publish("b", SPECS["b"])

    assert refused.value.exit_code == 3
    assert not list((world.store / "incoming").iterdir())
    ticket.unlink()
    world.publish("b", SPECS["b"])
    assert world.deploy("b", disk=Disk()).live == "b"
    count.add("attacks on the order of builds")


def test_a_last_number_that_is_no_file_is_named(here: Path, count: Count) -> None:
    world = World(here)
    (world.store / "sequence" / str(MOST_SEQUENCE)).mkdir()
    with pytest.raises(Mismatch, match=f"sequence/{MOST_SEQUENCE} .* Remove that file"):
        world.publish("a", SPECS["a"])
    count.add("attacks on the order of builds")
