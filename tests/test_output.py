"""What the verbs say: JSON fields that other programs rely on, summaries and tables for people."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from moorline import output
from moorline.build import Build, BuildId, Pin, Release, TargetRecord
from moorline.errors import Conflict, Problem
from moorline.manifest import DIRECTORY, FILE, LINK, Entry, Manifest, difference
from moorline.results import (
    BuildLine,
    DeployResult,
    ExportResult,
    InitResult,
    PublishResult,
    ShowResult,
    VerifyResult,
)
from moorline.wording import Listing, moment, printable

ID = BuildId("shop-41")
DIGEST = "3f2a9c1b" + "0" * 56

PUBLISHED = PublishResult(
    id=ID, digest=DIGEST, files=7530, bytes=477_000_000, new_files=3, new_bytes=41_000,
    linked_files=7527, seconds=0.4123456, bundle="out.zip", bundle_bytes=871, already=False,
    repaired=0, replaced=(),
)  # fmt: skip
DEPLOYED = DeployResult(
    id=ID, live=ID, target="/srv/shop", mode="copy", previous="shop-40", pinned=True, seconds=0.5,
    verified_files=7530, copied_files=3, copied_bytes=41_000, reused_files=7527,
)  # fmt: skip
BUILD = Build(ID, DIGEST, 1000, 7, "0123456789abcdef", 1_790_000_000, 2, 2_000, "abc", "moorline")
LINE = BuildLine(BUILD, True, ("PROD", "/srv/b"), ("audit",))
OLD = Manifest.of([
    Entry(b".", DIRECTORY, 0o755, 0),
    Entry(b"gone.js", FILE, 0o644, 5, "a" * 64),
    Entry(b"page.html", FILE, 0o644, 5, "b" * 64),
])  # fmt: skip
NEW = Manifest.of([
    Entry(b".", DIRECTORY, 0o755, 0),
    Entry(b"img", DIRECTORY, 0o755, 0),
    Entry(b"logo", LINK, 0o777, 3, "", b"img"),
    Entry(b"page.html", FILE, 0o600, 6, "c" * 64),
])  # fmt: skip


def text_of(outcome: output.Outcome) -> str:
    return "".join(b.text if isinstance(b, Listing) else b for b in outcome.data)


# -- verbs that change something ------------------------------------------------------------------


def test_publish_says_what_where_and_how_little() -> None:
    outcome = output.published(PUBLISHED, store="/mnt/efs/shop", dry_run=False)

    assert outcome.summary == (
        "published shop-41 to /mnt/efs/shop (digest 3f2a9c1b): 7,530 files, 3 new (41 KB), "
        "7,527 reused, in 0.4 s; bundle out.zip 871 bytes"
    )
    assert text_of(outcome) == "shop-41\n"
    assert outcome.then == "moorline deploy out.zip --target DIR"


def test_publish_promises_these_fields() -> None:
    fields = output.published(PUBLISHED, store="/s", dry_run=False).fields

    promised = "id digest files bytes new_files new_bytes linked_files seconds bundle bundle_bytes"
    assert set(promised.split()) | {"already", "repaired", "replaced", "dry_run"} == set(fields)
    assert fields["seconds"] == 0.412


def test_publishing_again_says_so_and_what_was_repaired() -> None:
    result = replace(PUBLISHED, already=True, repaired=2, bundle=None)
    outcome = output.published(result, store="/s", dry_run=False)

    assert outcome.summary.startswith("already published shop-41 to /s (digest 3f2a9c1b)")
    assert "nothing new, 2 repaired, in 0.4 s" in outcome.summary
    assert outcome.then == "moorline deploy shop-41 --target DIR"


def test_linked_paths_are_named() -> None:
    result = replace(PUBLISHED, replaced=("public/uploads/",))

    notes = output.published(result, store="/s", dry_run=False).notes

    assert notes == ["public/uploads/ is a link to the target's shared/public/uploads/"]


def test_a_dry_run_says_would() -> None:
    published = output.published(PUBLISHED, store="/s", dry_run=True)
    deployed = output.deployed(DEPLOYED, dry_run=True)
    back = output.rolled_back(DEPLOYED, dry_run=True)

    assert published.summary.startswith("would publish shop-41 to /s")
    assert "Nothing was written" in published.summary
    assert deployed.summary == "would deploy shop-41 to /srv/shop (copy)"
    assert back.summary == "would roll /srv/shop back to shop-41 (copy)"
    assert {published.then, deployed.then, back.then} == {""}
    assert all(outcome.fields["dry_run"] for outcome in (published, deployed, back))


def test_deploy_and_rollback_say_what_moved() -> None:
    moved = "(copy): 7,530 files verified, 3 copied (41 KB), 7,527 reused, in 0.5 s"

    deployed = output.deployed(DEPLOYED, dry_run=False)
    back = output.rolled_back(DEPLOYED, dry_run=False)

    assert deployed.summary == f"deployed shop-41 to /srv/shop {moved}; previous: shop-40"
    assert deployed.then == "moorline rollback --target /srv/shop"
    assert back.summary == f"rolled /srv/shop back to shop-41 {moved}; previous: shop-40"
    assert text_of(deployed) == text_of(back) == ""


def test_deploy_promises_these_fields() -> None:
    fields = output.deployed(DEPLOYED, dry_run=False).fields

    promised = "id live target mode previous pinned seconds verified_files copied_files"
    promised += " copied_bytes reused_files notes dry_run"
    assert set(promised.split()) == set(fields)


def test_link_mode_copies_nothing_and_says_nothing_of_it() -> None:
    outcome = output.deployed(replace(DEPLOYED, mode="link", previous=None), dry_run=False)

    assert outcome.summary == (
        "deployed shop-41 to /srv/shop (link): 7,530 files verified, in 0.5 s"
    )
    assert outcome.then == "moorline status"


def test_a_deploy_that_could_not_pin_says_so() -> None:
    outcome = output.deployed(replace(DEPLOYED, pinned=False, notes=("so",)), dry_run=False)

    assert outcome.notes[0] == "so"
    assert outcome.notes[1].startswith("not pinned: the ledger could not be written")


@pytest.mark.parametrize(("written", "word"), [(True, "wrote"), (False, "kept")])
def test_init_says_what_it_wrote(written: bool, word: str) -> None:
    result = InitResult("/s", "0" * 16, "shop", "pack", "./moorline.toml", written)

    summary = output.initialised(result).summary

    assert summary == f"store for shop at /s, layout pack; {word} moorline.toml"


def test_export_pin_and_unpin() -> None:
    exported = output.exported(ExportResult(ID, "/tmp/x", 2, 2000, 0.1))
    pinned = output.pinned(Pin(ID, "the audit", "ann", 1_790_000_000))
    unpinned = output.unpinned("shop-41", 1)

    assert text_of(exported) == "/tmp/x\n"
    assert exported.summary.startswith("exported shop-41 to /tmp/x: 2 files, 2.0 KB, all verified")
    assert pinned.fields == {"id": "shop-41", "reason": "the audit", "by": "ann",
                             "time": "2026-09-21T14:13:20Z"}  # fmt: skip
    assert unpinned.summary == "unpinned shop-41: removed 1 pin"
    assert unpinned.fields == {"id": "shop-41", "removed": 1}


# -- verbs that look ------------------------------------------------------------------------------


def test_status_is_one_row_for_each_target() -> None:
    records = [
        TargetRecord(
            "t1", "/srv/shop", "web1", 0, "PROD", "shop-41", "shop-40", None, 1_790_000_000
        ),
        TargetRecord("t2", "/srv/shop", "", 0),
    ]
    outcome = output.target_lines(records)

    assert text_of(outcome) == (
        "stage  host  target     live     since                 previous  deploying\n"
        "PROD   web1  /srv/shop  shop-41  2026-09-21 14:13:20Z  shop-40   -\n"
        "-      -     /srv/shop  nothing  -                     -         -\n"
    )
    first = outcome.fields["targets"][0]
    promised = {"target": "t1", "stage": "PROD", "id": "shop-41", "previous": "shop-40",
                "since": "2026-09-21T14:13:20Z"}  # fmt: skip
    assert promised.items() <= first.items()


def test_builds_are_rows_with_numbers_to_the_right() -> None:
    big = replace(BUILD, id=BuildId("shop-1"), files=7530, size_bytes=477_000_000)
    outcome = output.build_lines([LINE, BuildLine(big, False, (), ())])

    assert text_of(outcome) == (
        "build    created               files    size  stored  live on       pins\n"
        "shop-41  2026-09-21 14:13:20Z      2  2.0 KB  yes     PROD, /srv/b  audit\n"
        "shop-1   2026-09-21 14:13:20Z  7,530  477 MB  no      -             -\n"
    )
    assert outcome.fields["builds"][0] == {
        "id": "shop-41", "digest": DIGEST, "sequence": 7, "created": "2026-09-21T14:13:20Z",
        "files": 2, "bytes": 2000, "revision": "abc", "tool": "moorline", "present": True,
        "live_on": ["PROD", "/srv/b"], "pins": ["audit"],
    }  # fmt: skip


def test_show_lists_the_files_when_asked() -> None:
    result = ShowResult(LINE, NEW, "/s/builds/shop-41", (("0" * 16, 1500), ("1" * 16, 500)))

    short, long = (output.shown_build(result, with_entries=flag) for flag in (False, True))

    assert "packs     2, 2.0 KB\n" in text_of(short)
    assert f"digest    {DIGEST}\n" in text_of(short)
    assert "page.html" not in text_of(short)
    assert "f      600     6  cccccccccccc  page.html\n" in text_of(long)
    assert "logo -> img\n" in text_of(long)
    assert long.fields["entries"][2] == {
        "path": "logo", "kind": "l", "mode": "777", "size": 3, "target": "img"
    }  # fmt: skip


def test_diff_marks_each_path() -> None:
    outcome = output.changes("shop-40", "shop-41", difference(OLD, NEW))

    assert text_of(outcome) == (
        "-  gone.js    5 bytes\n"
        "+  img        directory\n"
        "+  logo       link to img\n"
        "~  page.html  content (5 -> 6 bytes), mode (644 -> 600)\n"
    )
    assert outcome.summary == "from shop-40 to shop-41: 2 added, 1 removed, 1 changed"
    assert [entry["path"] for entry in outcome.fields["added"]] == ["img", "logo"]


def test_diff_of_the_same_content_is_empty() -> None:
    outcome = output.changes("a", "b", difference(OLD, OLD))

    assert (text_of(outcome), outcome.summary) == ("", "a and b have the same content")


def test_history_is_the_rows_as_they_happened() -> None:
    row = Release(1, "live", ID, DIGEST, "copy", "bundle", 1_790_000_000, stage="PROD")
    outcome = output.release_lines("/srv/shop", [row.at("intended", 1_790_000_000), row])

    assert text_of(outcome) == (
        "n  time                  step      build    mode  reason  source  stage\n"
        "1  2026-09-21 14:13:20Z  intended  shop-41  copy  deploy  bundle  PROD\n"
        "1  2026-09-21 14:13:20Z  live      shop-41  copy  deploy  bundle  PROD\n"
    )
    assert outcome.fields["releases"][1]["time"] == "2026-09-21T14:13:20Z"


@pytest.mark.parametrize(
    "outcome",
    [output.target_lines([]), output.build_lines([]), output.release_lines("/srv/shop", [])],
)
def test_nothing_to_list_is_said_and_is_no_data(outcome: output.Outcome) -> None:
    assert outcome.data == ()
    assert outcome.summary


# -- verify ---------------------------------------------------------------------------------------


def verify_result(*problems: Problem, id: str = "shop-41") -> VerifyResult:
    return VerifyResult(BuildId(id), not problems, problems, 7530, 477_000_000, 1.1, "/s")


def test_a_build_without_a_difference() -> None:
    outcome = output.verified([verify_result()])

    assert outcome.summary == (
        "verified shop-41 in /s: 7,530 files, 477 MB read, no difference, in 1.1 s"
    )
    assert {"id": "shop-41", "ok": True, "problems": []}.items() <= outcome.fields.items()
    assert outcome.failure is None


def test_differences_are_data_all_of_them_and_a_failure() -> None:
    problems = [Problem(f"f{n:03}", "content differs") for n in range(200)]
    outcome = output.verified([verify_result(*problems)])

    assert text_of(outcome).count("content differs\n") == 200
    assert outcome.failure is not None
    assert outcome.failure.exit_code == 3
    assert outcome.failure.message == (
        "build shop-41 does not match its manifest: 200 differences in /s. The store was changed "
        "after publishing. Publish the same build again to repair it."
    )
    assert len(outcome.fields["problems"]) == 200
    assert (outcome.fields["ok"], outcome.fields["exit"]) == (False, 3)


def test_a_target_is_repaired_in_another_way() -> None:
    outcome = output.verified([verify_result(Problem("a", "missing"))], target=True)

    assert outcome.failure is not None
    assert "Deploy the same build again to repair it." in outcome.failure.message


def test_several_builds_are_told_apart() -> None:
    bad = [verify_result(Problem("a", "missing"), id=f"shop-{n}") for n in range(7)]
    outcome = output.verified([verify_result(id="good"), *bad], everything=True)

    assert text_of(outcome).splitlines()[0] == "shop-0  a  missing"
    assert outcome.failure is not None
    assert (
        "7 builds do not match their manifests (shop-0, shop-1, shop-2, shop-3, shop-4, ...)"
        in (outcome.failure.message)
    )
    assert [build["ok"] for build in outcome.fields["builds"]] == [True] + [False] * 7


def test_all_builds_of_an_empty_store_are_fine() -> None:
    assert output.verified([], everything=True).fields == {"ok": True, "builds": []}


# -- words ----------------------------------------------------------------------------------------


def test_a_failure_is_one_object() -> None:
    error = Conflict("taken.", problems=[Problem("a", "is bad")], live="shop-40")

    assert output.failure_fields(error) == {
        "error": "taken.", "exit": 5, "problems": [{"path": "a", "problem": "is bad"}],
        "live": "shop-40",
    }  # fmt: skip


def test_fifty_problems_are_shown_and_the_rest_is_counted() -> None:
    problems = [Problem(str(n), "is bad") for n in range(1050)]

    lines = output.problem_lines(problems)

    assert len(lines) == 51
    assert lines[-1] == "... and 1,000 more (all of them: --json)"
    assert len(output.problem_lines(problems[:50])) == 50


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain \N{ANCHOR}", "plain \N{ANCHOR}"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines\t", "two\\nlines\\t"),
        ("\udcff", "\\udcff"),
        ("\u202eleft", "\\u202eleft"),
    ],
)
def test_a_terminal_obeys_nothing_that_a_record_says(text: str, safe: str) -> None:
    assert printable(text) == safe


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, None), (1, "1970-01-01T00:00:01Z"), (1 << 62, str(1 << 62)), (-(1 << 62), f"-{1 << 62}")],
)
def test_any_number_in_a_record_is_a_time_or_itself(seconds: int, text: str | None) -> None:
    assert moment(seconds) == text


def test_columns_count_cells_not_characters() -> None:
    listing = Listing(("a", "b"), (("日本", "x"), ("y", "z")))

    assert listing.text == "a     b\n日本  x\ny     z\n"


@pytest.mark.parametrize(
    "outcome",
    [
        output.published(PUBLISHED, store="/s", dry_run=False),
        output.deployed(DEPLOYED, dry_run=False),
        output.verified([verify_result(Problem("a", "b"))]),
        output.changes("a", "b", difference(OLD, NEW)),
    ],
)
def test_the_fields_are_plain_json(outcome: output.Outcome) -> None:
    fields: dict[str, Any] = dict(outcome.fields)

    assert json.loads(json.dumps(fields)) == fields
