"""Progress: a bar without threads on a terminal, a plain line every few seconds in a log."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from moorline.meter import LINE_EVERY_S, Lines, Silent
from moorline.screen import BAR_AFTER_S, BAR_EVERY_S, Bar
from moorline.wording import amount


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def terminal() -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=True, width=100, color_system=None), stream


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (871, "871 bytes"),
        (1000, "1.0 KB"),
        (41_200, "41 KB"),
        (999_600, "1.0 MB"),
        (1_234_567, "1.2 MB"),
        (477_000_000, "477 MB"),
        (12_300_000_000, "12 GB"),
        (7_000_000_000_000_000, "7,000 TB"),
    ],
)
def test_sizes_have_two_or_three_digits(size_bytes: int, text: str) -> None:
    assert amount(size_bytes) == text


def test_a_log_gets_a_line_every_few_seconds() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, clock)

    for step in range(41):
        lines(step * 5_000_000, 477_000_000, "hashing")
        clock.now += LINE_EVERY_S / 20
    lines.close()

    assert stream.getvalue() == (
        "hashing: 100 MB of 477 MB, 20.0 MB/s, 19 s left\n"
        "hashing: 200 MB of 477 MB, 20.0 MB/s, 14 s left\n"
    )


def test_files_a_second_are_told_as_well() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, clock)

    lines(0, 477_000_000, "writing", 0)
    clock.now += LINE_EVERY_S
    lines(100_000_000, 477_000_000, "writing", 7_500)
    clock.now += LINE_EVERY_S
    lines(0, 477_000_000, "placing", 1)
    clock.now += LINE_EVERY_S
    lines(0, 477_000_000, "placing", 6_000)

    assert stream.getvalue() == (
        "writing: 100 MB of 477 MB, 20.0 MB/s, 1,500 files/s, 19 s left\n"
        "placing: 0 bytes of 477 MB\n"
        "placing: 0 bytes of 477 MB, 1,200 files/s\n"
    )


def test_what_is_over_soon_leaves_no_line() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, clock)

    lines(0, 10, "copying")
    clock.now += LINE_EVERY_S - 0.1
    lines(10, 10, "copying")
    lines.close()

    assert stream.getvalue() == ""


def test_without_a_total_nothing_is_said_about_the_rest() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, clock)

    lines(0, 0, "hashing")
    clock.now += LINE_EVERY_S
    lines(50_000_000, 0, "hashing")

    assert stream.getvalue() == "hashing: 50 MB, 10.0 MB/s\n"


def test_the_speed_is_that_of_the_present_step() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, clock)
    lines(900_000_000, 0, "hashing")
    clock.now += 1000

    lines(0, 100_000_000, "copying")
    clock.now += LINE_EVERY_S
    lines(50_000_000, 100_000_000, "copying")

    assert stream.getvalue().splitlines()[-1] == "copying: 50 MB of 100 MB, 10.0 MB/s, 5 s left"


def test_a_bar_is_drawn_at_most_ten_times_a_second_and_has_no_thread() -> None:
    clock = Clock()
    console, stream = terminal()
    bar = Bar(console, clock)
    threads = threading.active_count()
    clock.now += BAR_AFTER_S

    for step in range(1000):
        bar(step * 1000, 1_000_000, "copying")
        clock.now += BAR_EVERY_S / 100
    drawn = stream.getvalue().count("copying")

    assert threading.active_count() == threads
    assert 9 <= drawn <= 12
    assert "of 1.0 MB" in stream.getvalue()
    bar.close()


def test_a_bar_leaves_the_screen_and_may_come_back() -> None:
    clock = Clock()
    console, stream = terminal()
    bar = Bar(console, clock)
    clock.now += BAR_AFTER_S

    bar(1, 2, "copying")
    bar.close()
    assert stream.getvalue().endswith(("\x1b[2K", "\x1b[?25h"))  # line erased, cursor shown
    clock.now += 1
    bar(2, 2, "verifying")
    bar.close()

    assert "verifying" in stream.getvalue()
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 2


def test_what_is_over_at_once_shows_no_bar() -> None:
    clock = Clock()
    console, stream = terminal()
    bar = Bar(console, clock)

    bar(0, 2, "copying")
    clock.now += BAR_AFTER_S / 2
    bar(2, 2, "copying")
    bar.close()

    assert stream.getvalue() == ""


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    meter = Silent()
    meter(1, 2, "copying")
    meter.close()

    assert capsys.readouterr() == ("", "")
