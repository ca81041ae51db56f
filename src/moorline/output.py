"""What the verbs say: results of `workflow` as an Outcome. Pure: it prints nothing.

An Outcome holds one object for --json, the data for stdout and the talk for stderr. The fields of
the object are part of the contract with other programs (design, commands).
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moorline.errors import Error, Mismatch, Problem
from moorline.manifest import Difference, Entry, how_changed, shown
from moorline.wording import Listing, amount, counted, moment, printable

if TYPE_CHECKING:
    from moorline.build import Pin, Release, TargetRecord
    from moorline.results import (
        BuildLine,
        DeployResult,
        ExportResult,
        InitResult,
        PublishResult,
        ShowResult,
        VerifyResult,
    )

MAX_PROBLEMS = 50


@dataclass(frozen=True)
class Outcome:
    """What one verb has to say.

    `fields` is the object for --json; `data` goes to stdout, `summary`, `notes` and `then` (the
    next command) to stderr. With `failure` the verb ran to its end and found something wrong.
    """

    fields: Mapping[str, Any]
    data: Sequence[str | Listing] = ()
    summary: str = ""
    notes: Sequence[str] = ()
    then: str = ""
    failure: Error | None = field(default=None)


# -- words ----------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """`value` as JSON has it: dataclasses and named tuples are objects, floats are short."""
    if isinstance(value, Problem):
        return value._asdict()
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return round(value, 3) if isinstance(value, float) else value


def failure_fields(error: Error) -> dict[str, Any]:
    """The object that --json prints for a failure."""
    return {"error": error.message, "exit": error.exit_code, "problems": plain(error.problems),
            "live": error.live}  # fmt: skip


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """The first problems, one a line, and how many more there are."""
    lines = [printable(f"{path}: {problem}") for path, problem in problems[:MAX_PROBLEMS]]
    rest = len(problems) - MAX_PROBLEMS
    return [*lines, *([f"... and {rest:,} more (all of them: --json)"] if rest > 0 else [])]


def _command(*words: str) -> str:
    return "moorline " + " ".join(shlex.quote(word) for word in words)


# -- verbs that change something ------------------------------------------------------------------


def initialised(result: InitResult) -> Outcome:
    config = f"{'wrote' if result.config_written else 'kept'} {os.path.normpath(result.config)}"
    return Outcome(
        fields=plain(result),
        summary=f"store for {result.app} at {result.store}, layout {result.layout}; {config}",
        then=_command("publish", "DIR", "--bundle", "bundle"),
    )


def published(result: PublishResult, *, store: str, dry_run: bool) -> Outcome:
    what = f"{result.id} to {store} (digest {result.digest[:8]}): {counted(result.files, 'file')}"
    if dry_run:
        summary = f"would publish {what}, {amount(result.bytes)}. Nothing was written"
    elif result.already:
        summary = f"already published {what}, nothing new"
    else:
        summary = (
            f"published {what}, {result.new_files:,} new ({amount(result.new_bytes)}), "
            f"{result.linked_files:,} reused"
        )
    if result.repaired:
        summary += f", {result.repaired:,} repaired"
    summary += f", in {result.seconds:.1f} s"
    if result.bundle and not dry_run:
        summary += f"; bundle {result.bundle} {amount(result.bundle_bytes)}"
    notes = [f"{path} is a link to the target's shared/{path}" for path in result.replaced]
    then = "" if dry_run else _command("deploy", result.bundle or result.id, "--target", "DIR")
    fields = {**plain(result), "dry_run": dry_run}
    return Outcome(fields, [f"{result.id}\n"], summary, notes, then)


def deployed(result: DeployResult, *, dry_run: bool) -> Outcome:
    words = ("would deploy" if dry_run else "deployed", result.id, "to", result.target)
    then = ("rollback", "--target", result.target) if result.previous else ("status",)
    return _went_live(" ".join(words), result, then, dry_run)


def rolled_back(result: DeployResult, *, dry_run: bool) -> Outcome:
    words = ("would roll" if dry_run else "rolled", result.target, "back to", result.id)
    return _went_live(" ".join(words), result, ("history", "--target", result.target), dry_run)


def _went_live(what: str, result: DeployResult, then: Sequence[str], dry_run: bool) -> Outcome:
    fields = {**plain(result), "dry_run": dry_run}
    if dry_run:
        return Outcome(fields, (), f"{what} ({result.mode})", result.notes)
    parts = [f"{what} ({result.mode}): {counted(result.verified_files, 'file')} verified"]
    if result.mode == "copy":
        parts.append(f"{result.copied_files:,} copied ({amount(result.copied_bytes)})")
        parts.append(f"{result.reused_files:,} reused")
    parts.append(f"in {result.seconds:.1f} s")
    summary = ", ".join(parts) + (f"; previous: {result.previous}" if result.previous else "")
    notes = list(result.notes)
    if not result.pinned:
        notes.append("not pinned: the ledger could not be written, so prune does not know of it")
    return Outcome(fields, (), summary, notes, _command(*then))


def exported(result: ExportResult) -> Outcome:
    summary = (
        f"exported {result.id} to {result.path}: {counted(result.files, 'file')}, "
        f"{amount(result.bytes)}, all verified, in {result.seconds:.1f} s"
    )
    return Outcome(plain(result), [f"{result.path}\n"], summary)


def pinned(pin: Pin) -> Outcome:
    fields = {**plain(pin), "time": moment(pin.time)}
    return Outcome(fields, (), f"pinned {pin.id}: {printable(pin.reason)}",
                   then=_command("unpin", pin.id))  # fmt: skip


def unpinned(id: str, removed: int) -> Outcome:
    summary = f"unpinned {id}: removed {counted(removed, 'pin')}"
    return Outcome({"id": id, "removed": removed}, (), summary)


# -- verbs that look ------------------------------------------------------------------------------


def target_lines(records: Iterable[TargetRecord]) -> Outcome:
    found = list(records)
    fields = [
        {
            "target": record.target,
            "stage": record.stage,
            "id": record.current,
            "previous": record.previous,
            "since": moment(record.since),
            "root": record.root,
            "host": record.host,
            "deploying": record.deploying,
        }
        for record in found
    ]
    rows = _rows(
        (r.stage or "-", r.host or "-", r.root, r.current or "nothing", _short(r.since),
         r.previous or "-", r.deploying or "-")
        for r in found
    )  # fmt: skip
    columns = ("stage", "host", "target", "live", "since", "previous", "deploying")
    summary = "" if found else "no target has deployed from this store yet"
    return Outcome({"targets": fields}, [Listing(columns, rows)] if rows else (), summary)


def build_lines(lines: Iterable[BuildLine]) -> Outcome:
    found = list(lines)
    rows = _rows(
        (line.build.id, _short(line.build.created), f"{line.build.files:,}",
         amount(line.build.size_bytes), "yes" if line.present else "no",
         ", ".join(line.live_on) or "-", ", ".join(line.pins) or "-")
        for line in found
    )  # fmt: skip
    columns = ("build", "created", "files", "size", "stored", "live on", "pins")
    data = [Listing(columns, rows, ("files", "size"))] if rows else ()
    summary = "" if found else "no build has been published to this store yet"
    return Outcome({"builds": [build_fields(line) for line in found]}, data, summary)


def build_fields(line: BuildLine) -> dict[str, Any]:
    build = line.build
    return {
        "id": build.id,
        "digest": build.digest,
        "sequence": build.sequence,
        "created": moment(build.created),
        "files": build.files,
        "bytes": build.size_bytes,
        "revision": build.revision,
        "tool": build.tool,
        "present": line.present,
        "live_on": list(line.live_on),
        "pins": list(line.pins),
    }


def shown_build(result: ShowResult, *, with_entries: bool) -> Outcome:
    build, line = result.line.build, result.line
    packs = [{"token": token, "bytes": size} for token, size in result.packs]
    fields = {**build_fields(line), "path": result.path, "packs": packs}
    size_bytes = sum(size for _, size in result.packs)
    pairs = [
        ("build", build.id), ("digest", build.digest), ("created", _short(build.created)),
        ("sequence", str(build.sequence)), ("files", f"{build.files:,}"),
        ("size", amount(build.size_bytes)),
        ("revision", build.revision or "-"), ("made by", build.tool or "-"),
        ("stored", result.path if line.present else "no: only the ledger remembers it"),
        *([("packs", f"{len(packs)}, {amount(size_bytes)}")] if packs else []),
        ("live on", ", ".join(line.live_on) or "-"), ("pins", ", ".join(line.pins) or "-"),
    ]  # fmt: skip
    data: list[str | Listing] = [Listing((), _rows(pairs))]
    if with_entries:
        entries = result.manifest.entries
        fields["entries"] = [entry_fields(entry) for entry in entries]
        data += ["\n", Listing(("kind", "mode", "size", "digest", "path"), _rows(
            (e.kind, f"{e.mode:o}", f"{e.size:,}", e.digest[:12] or "-", _named(e))
            for e in entries
        ), ("mode", "size"))]  # fmt: skip
    return Outcome(fields, data)


def entry_fields(entry: Entry) -> dict[str, Any]:
    fields: dict[str, Any] = {"path": entry.shown, "kind": entry.kind, "mode": f"{entry.mode:o}",
                              "size": entry.size}  # fmt: skip
    if entry.digest:
        fields["digest"] = entry.digest
    if entry.target:
        fields["target"] = shown(entry.target)
    return fields


def changes(a: str, b: str, result: Difference) -> Outcome:
    changed = [(old.shown, how_changed(old, new)) for old, new in result.changed]
    fields = {
        "from": a,
        "to": b,
        "added": [entry_fields(entry) for entry in result.added],
        "removed": [entry_fields(entry) for entry in result.removed],
        "changed": [{"path": path, "change": change} for path, change in changed],
    }
    marked = [
        *((entry.path, "+", entry.shown, _what(entry)) for entry in result.added),
        *((entry.path, "-", entry.shown, _what(entry)) for entry in result.removed),
        *((old.path, "~", old.shown, how_changed(old, new)) for old, new in result.changed),
    ]
    rows = _rows(row[1:] for row in sorted(marked))
    summary = (
        f"from {a} to {b}: {len(result.added):,} added, {len(result.removed):,} removed, "
        f"{len(changed):,} changed"
        if result
        else f"{a} and {b} have the same content"
    )
    return Outcome(fields, [Listing((), rows)] if rows else (), summary)


def release_lines(target: str, releases: Iterable[Release]) -> Outcome:
    found = list(releases)
    fields = [{**plain(release), "time": moment(release.time)} for release in found]
    rows = _rows(
        (str(r.n), _short(r.time), r.step, r.id, r.mode, r.reason, r.source, r.stage or "-")
        for r in found
    )
    columns = ("n", "time", "step", "build", "mode", "reason", "source", "stage")
    data = [Listing(columns, rows, ("n",))] if rows else ()
    summary = "" if found else f"nothing has been deployed to {target} yet"
    return Outcome({"target": target, "releases": fields}, data, summary)


def verified(
    results: Sequence[VerifyResult], *, everything: bool = False, target: bool = False
) -> Outcome:
    """Exit code 3 when anything differs; every difference is data, so all of them are listed."""
    bad = [result for result in results if not result.ok]
    if everything:
        fields = {"ok": not bad, "builds": [plain(result) for result in results]}
    else:
        fields = plain(results[0])
    rows = _rows(
        ((r.id,) if everything else ()) + (p.path, p.problem) for r in bad for p in r.problems
    )
    data = [Listing((), rows)] if rows else ()
    if bad:
        failure = Mismatch(_differences(bad, "target" if target else "store"))
        return Outcome({**fields, **_without_problems(failure)}, data, failure=failure)
    files, size = sum(r.files for r in results), sum(r.bytes for r in results)
    what = (
        counted(len(results), "build") if everything else f"{results[0].id} in {results[0].where}"
    )
    seconds = sum(r.seconds for r in results)
    summary = (
        f"verified {what}: {counted(files, 'file')}, {amount(size)} read, no difference, "
        f"in {seconds:.1f} s"
    )
    return Outcome(fields, data, summary)


def _without_problems(failure: Error) -> dict[str, Any]:
    return {name: v for name, v in failure_fields(failure).items() if name != "problems"}


_CURES = {
    "store": "The store was changed after publishing. Publish the same build again to repair it.",
    "target": "The release was changed after its deploy. Deploy the same build again to repair it.",
}


def _differences(bad: Sequence[VerifyResult], place: str) -> str:
    count = counted(sum(len(result.problems) for result in bad), "difference")
    if len(bad) == 1:
        what = f"{_changed(bad[0])}: {count} in {bad[0].where}"
    else:
        ids = ", ".join([result.id for result in bad[:5]] + ["..."] * (len(bad) > 5))
        what = f"{len(bad):,} builds do not match their manifests ({ids}): {count} in all"
    return f"{what}. {_CURES[place]}"


def _changed(result: VerifyResult) -> str:
    if result.id.endswith("/"):  # a folder of the store that is none of a build
        return f"{result.id} does not hold what the names in it say"
    return f"build {result.id} does not match its manifest"


# -- cells ----------------------------------------------------------------------------------------


def _rows(rows: Iterable[Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(printable(cell) for cell in row) for row in rows)


def _short(seconds: int) -> str:
    return (moment(seconds) or "-").replace("T", " ")


def _named(entry: Entry) -> str:
    return f"{entry.shown} -> {shown(entry.target)}" if entry.target else entry.shown


def _what(entry: Entry) -> str:
    if entry.kind == "f":
        return amount(entry.size)
    return f"link to {shown(entry.target)}" if entry.target else "directory"
