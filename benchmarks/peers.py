"""The peers: what people use today to store builds and bring them to a machine.

Each gets its best case: everything on one local disk, nothing to wait for, the fastest options
that still do the same work. Where a peer proves nothing, its step says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import Command
from benchmarks.scenario import Contender, Site, Step, command, make_folder, switch_to

NO_PROOF = "nothing"
OLD, NEW = "build-a", "build-b"  # not "a": ostree takes that for a part of a checksum
CHECKSUMS = "find . -type f -print0 | xargs -0 -P2 -n 400 sha256sum"  # T of the design


class Alone:
    """A quick contender that needs nothing beside it."""

    slow = False

    def running(self, site: Site) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


@dataclass(frozen=True)
class PlainCopy(Alone):
    """`cp -a` into a folder for each build, and a link to the folder."""

    name: str = "cp -a"
    programs: tuple[str, ...] = ("cp",)

    def steps(self, site: Site) -> Iterator[Step]:
        store, one, two = site.store, site.target(1), site.target(2)
        yield Step(
            "first", (command("cp", "-a", site.a, store / "A"),),
            (make_folder(store, one, two),), grows=store, proof=NO_PROOF,
        )  # fmt: skip
        yield Step(
            "publish", (command("cp", "-a", site.b, store / "B"),), grows=store, proof=NO_PROOF
        )
        yield self._copy("copy_new", site, one)
        yield self._copy("copy", site, two, (command("cp", "-a", store / "A", two / "A"),))
        yield Step("rollback", (switch_to(two / "A", two / "current"),), proof=NO_PROOF)
        yield Step("remove", (command("rm", "-rf", store / "A"),), grows=store)

    def _copy(self, key: str, site: Site, target: Path, prepare: tuple[Command, ...] = ()) -> Step:
        copy = command("cp", "-a", site.store / "B", target / "B", label="copy")
        commands = (copy, switch_to(target / "B", target / "current"))
        return Step(
            key, commands, prepare, grows=target, makes=target / "B", like=site.b, proof=NO_PROOF
        )


@dataclass(frozen=True)
class Rsync(Alone):
    """Snapshots with hard links; --checksum, because times do not tell builds apart."""

    name: str = "rsync"
    programs: tuple[str, ...] = ("rsync",)

    def steps(self, site: Site) -> Iterator[Step]:
        store, one, two = site.store, site.target(1), site.target(2)
        yield Step(
            "first", (self._sync(site.a, store / "A"),), (make_folder(store, one, two),),
            grows=store, proof=NO_PROOF,
        )  # fmt: skip
        yield Step(
            "publish", (self._sync(site.b, store / "B", store / "A"),), grows=store, proof="source"
        )
        yield self._copy("copy_new", site, one)
        yield self._copy("copy", site, two, two / "A", (self._sync(store / "A", two / "A"),))
        yield Step("rollback", (switch_to(two / "A", two / "current"),), proof=NO_PROOF)
        compare = command("rsync", "-anc", "--delete", f"{site.b}/", f"{store}/B/")
        yield Step("verify", (compare,), proof="against the source")
        yield Step("remove", (command("rm", "-rf", store / "A"),), grows=store)

    def _copy(
        self, key: str, site: Site, target: Path, base: Path | None = None,
        prepare: tuple[Command, ...] = (),
    ) -> Step:  # fmt: skip
        sync = self._sync(site.store / "B", target / "B", base)
        return Step(
            key, (sync, switch_to(target / "B", target / "current")), prepare, grows=target,
            makes=target / "B", like=site.b, proof="store and base, to compare them",
        )  # fmt: skip

    def _sync(self, source: Path, to: Path, base: Path | None = None) -> Command:
        links = (f"--link-dest={base}",) if base else ()
        return command("rsync", "-a", "--checksum", *links, f"{source}/", f"{to}/", label="rsync")


@dataclass(frozen=True)
class Ostree(Alone):
    """One repository on the share, one on each target.

    The target's is of another mode, and `--untrusted` hashes what is pulled: otherwise a pull on
    one disk only makes hard links, which a share and a local disk cannot have between them.
    """

    name: str = "ostree"
    programs: tuple[str, ...] = ("ostree",)

    def steps(self, site: Site) -> Iterator[Step]:
        store = site.store
        make = [self._run(store, "init", "--mode=bare")]
        make += [self._run(self._repo(site.target(n)), "init", "--mode=bare-user") for n in (1, 2)]
        folders = (store, *(self._repo(site.target(number)) for number in (1, 2)), site.target(3))
        yield Step(
            "first", (self._commit(site.a, store, OLD),),
            (make_folder(*folders), *make),
            grows=store, proof="source",
        )  # fmt: skip
        yield Step("publish", (self._commit(site.b, store, NEW),), grows=store, proof="source")
        yield self._copy("copy_new", site, site.target(1))
        yield self._copy("copy", site, site.target(2), self._place(store, site.target(2), OLD))
        yield Step(
            "rollback", (switch_to(site.target(2) / OLD, site.target(2) / "current"),),
            proof=NO_PROOF,
        )  # fmt: skip
        linked = site.target(3) / NEW
        yield Step(
            "link",
            (
                self._run(store, "fsck", "--quiet", label="fsck"),
                self._run(store, "checkout", "-H", NEW, linked, label="checkout"),
                switch_to(linked, site.target(3) / "current"),
            ),
            makes=linked, like=site.b, proof="every object of the repository",
        )  # fmt: skip
        yield Step(
            "verify", (self._run(store, "fsck", "--quiet"),),
            proof="every object of the repository",
        )  # fmt: skip
        forget = self._run(store, "refs", "--delete", OLD, label="refs")
        prune = self._run(store, "prune", "--refs-only", label="prune")
        yield Step("remove", (forget, prune), grows=store)

    def _repo(self, target: Path) -> Path:
        return target / "repo"

    def _copy(self, key: str, site: Site, target: Path, prepare: tuple[Command, ...] = ()) -> Step:
        return Step(
            key, self._place(site.store, target, NEW), prepare, grows=target, makes=target / NEW,
            like=site.b, proof="what is pulled",
        )  # fmt: skip

    def _place(self, store: Path, target: Path, name: str) -> tuple[Command, ...]:
        repo = self._repo(target)
        return (
            self._run(repo, "pull-local", "--untrusted", store, name, label="pull"),
            self._run(repo, "checkout", "-U", "-H", name, target / name, label="checkout"),
            switch_to(target / name, target / "current"),
        )

    def _commit(self, source: Path, repo: Path, branch: str) -> Command:
        return self._run(repo, "commit", "--branch", branch, f"--tree=dir={source}")

    def _run(self, repo: Path, verb: str, *argv: str | Path, label: str = "") -> Command:
        return command("ostree", verb, f"--repo={repo}", *argv, label=label)


@dataclass(frozen=True)
class Casync(Alone):
    """Chunks in a store; a release that is there serves as a seed."""

    name: str = "casync"
    programs: tuple[str, ...] = ("casync",)
    slow: bool = True

    def steps(self, site: Site) -> Iterator[Step]:
        store, one, two = site.store, site.target(1), site.target(2)
        chunks = f"--store={store}/chunks.castr"
        old, new = store / "a.caidx", store / "b.caidx"
        yield Step(
            "first", (command("casync", "make", chunks, old, site.a),),
            (make_folder(store, one, two),), grows=store, proof="source",
        )  # fmt: skip
        yield Step(
            "publish", (command("casync", "make", chunks, new, site.b),), grows=store,
            proof="source",
        )  # fmt: skip
        yield self._copy("copy_new", site, one, (chunks,))
        seed = f"--seed={two / 'A'}"
        prepare = (command("casync", "extract", chunks, old, two / "A"),)
        yield self._copy("copy", site, two, (chunks, seed), prepare)
        yield Step("rollback", (switch_to(two / "A", two / "current"),), proof=NO_PROOF)
        yield Step("verify", (command("casync", "digest", chunks, new),), proof="every chunk of B")
        collect = command("casync", "gc", chunks, new, label="gc")
        yield Step("remove", (command("rm", old, label="rm"), collect), grows=store)

    def _copy(
        self, key: str, site: Site, target: Path, options: tuple[str, ...],
        prepare: tuple[Command, ...] = (),
    ) -> Step:  # fmt: skip
        new = site.store / "b.caidx"
        extract = command("casync", "extract", *options, new, target / "B", label="extract")
        return Step(
            key, (extract, switch_to(target / "B", target / "current")), prepare, grows=target,
            makes=target / "B", like=site.b, proof="every chunk",
        )  # fmt: skip


@dataclass(frozen=True)
class Restic(Alone):
    """A backup for each build, restored on the target. It encrypts; there is no way not to."""

    name: str = "restic"
    programs: tuple[str, ...] = ("restic",)
    slow: bool = True

    def steps(self, site: Site) -> Iterator[Step]:
        prepare = (make_folder(site.target(1), site.target(2)), self._run(site, "init"))
        yield Step("first", (self._backup(site, site.a, "a"),), prepare, grows=site.store,
                   proof="source")  # fmt: skip
        yield Step("publish", (self._backup(site, site.b, "b"),), grows=site.store,
                   proof="source")  # fmt: skip
        yield self._restore("copy_new", site, site.target(1) / "B")
        held = self._run(site, "restore", "latest", "--tag=a", "--target", site.target(2) / "A")
        yield self._restore("copy", site, site.target(2) / "B", (held,))
        old, current = site.target(2) / "A", site.target(2) / "current"
        yield Step("rollback", (switch_to(old, current),), proof=NO_PROOF)
        yield Step("verify", (self._run(site, "check", "--read-data"),), proof="every pack")
        forget = self._run(site, "forget", "--tag=a", "--prune", "latest")
        yield Step("remove", (forget,), grows=site.store)

    def _restore(self, key: str, site: Site, to: Path, prepare: tuple[Command, ...] = ()) -> Step:
        restore = self._run(site, "restore", "latest", "--tag=b", "--target", to, label="restore")
        return Step(
            key, (restore, switch_to(to, to.parent / "current")), prepare, grows=to.parent,
            makes=to, like=site.b, proof="every blob that is read",
        )  # fmt: skip

    def _backup(self, site: Site, source: Path, tag: str) -> Command:
        return self._run(site, "backup", "--host=builder", f"--tag={tag}", ".", cwd=source)

    def _run(
        self, site: Site, verb: str, *argv: str | Path, cwd: Path | None = None, label: str = ""
    ) -> Command:
        variables = {
            "RESTIC_REPOSITORY": str(site.store),
            "RESTIC_PASSWORD": "benchmark",
            "RESTIC_CACHE_DIR": str(site.work / "cache"),
        }
        return Command(("restic", verb, "--quiet", *argv), label, cwd, variables=variables)


@dataclass(frozen=True)
class Md5(Alone):
    """The article's own check: a list made with `find -exec`, compared before each switch."""

    name: str = "md5sum (the article)"
    programs: tuple[str, ...] = ("md5sum", "find")

    def steps(self, site: Site) -> Iterator[Step]:
        sums = site.work / "sums"
        find = ("find", ".", "-type", "f", "-exec", "md5sum", "{}", ";")
        quick = ("find", ".", "-type", "f", "-exec", "md5sum", "{}", "+")
        check = Command(("md5sum", "-c", "--quiet", sums), "md5sum -c", site.b)
        yield Step("list", (Command(find, "find -exec", site.b, sums),), slow=True, proof="source")
        listed = (make_folder(site.target(3)), Command(quick, "", site.b, sums))
        yield Step("verify", (check,), listed, proof="listed files")
        switch = switch_to(site.b, site.target(3) / "current")
        yield Step("link", (check, switch), proof="listed files")


@dataclass(frozen=True)
class Floor(Alone):
    """T of the design: every file hashed once by coreutils, two at a time."""

    name: str = "T: sha256sum -P2"
    programs: tuple[str, ...] = ("sha256sum", "xargs", "find")

    def steps(self, site: Site) -> Iterator[Step]:
        hashing = Command(("sh", "-c", CHECKSUMS), "", site.b, Path("/dev/null"))
        yield Step("list", (hashing,), proof="source")


def peers() -> tuple[Contender, ...]:
    return (PlainCopy(), Rsync(), Ostree(), Casync(), Restic(), Md5())
