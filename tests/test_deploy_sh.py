"""deploy.sh as CodeDeploy runs it, under every shell that a target may have as /bin/sh.

The script is the real one of a bundle; the agent is a fake that reports how it was called. Only
literals are replaced: the wait is shortened, and /etc/moorline.toml lies in the test's own folder.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from moorline.build import BuildId
from moorline.bundle import BUILD, DEPLOY, NAMES, Bundle
from moorline.bundling import bundle_files, write_bundle, zip_bytes
from moorline.disk import Disk

# Bash as it is when it is /bin/sh (Amazon Linux).
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}

FAKE_AGENT = """\
import json, os, signal, stat, sys, time
here = os.stat(sys.argv[0])
report = {
    "argv": sys.argv[1:], "program": sys.argv[0], "mode": stat.S_IMODE(here.st_mode),
    "environment": dict(os.environ), "isolated": sys.flags.isolated, "cwd": os.getcwd(),
    "name": os.environ.get("NAME", ""),
}
with open(os.environ["REPORT"], "w") as file:
    json.dump(report, file)
if os.environ.get("SLOW"):
    def put_back(*_):
        time.sleep(0.5)
        with open(os.environ["REPORT"] + ".end", "w") as file:
            file.write(str(os.path.exists(sys.argv[0])))
        sys.exit(6)
    signal.signal(signal.SIGTERM, put_back)
    open(os.environ["REPORT"] + ".ready", "w").close()
    time.sleep(30)
print("the agent ran")
sys.exit(int(os.environ.get("CODE", "0")))
"""


def zipapp_of(source: str) -> bytes:
    out = io.BytesIO()
    out.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py"), source)
    return out.getvalue()


AGENT = zipapp_of(FAKE_AGENT)
SHA = hashlib.sha256(AGENT).hexdigest()
BUNDLE = Bundle(BuildId("b-1"), "d" * 64, 5, "5" * 64, SHA)


@dataclass
class Machine:
    """A target with a store, a bundle's folder and a place for temporary files, all in `path`."""

    path: Path
    shell: Sequence[str]
    root: str = "/srv/moorline-test-no-such-root"
    literals: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        self.store, self.folder = self.path / "store", self.path / "a bundle's folder"
        self.temporary, self.report = self.path / "tmp dir", self.path / "report"
        self.toml = self.path / "moorline.toml"
        for folder in (self.store / "agent", self.folder, self.temporary):
            folder.mkdir(parents=True)
        self.agent = self.store / "agent" / f"{SHA}.pyz"
        self.agent.write_bytes(AGENT)

    def script(self, *, words: bool = True) -> str:
        """The real text; with a store path as long as a path may be, the words are left out."""
        text = bundle_files(BUNDLE, store="/mnt/store", root=self.root)[DEPLOY].decode("ascii")
        if not words:
            lines = [line for line in text.splitlines() if "deploy failed" not in line]
            text = "".join(line + "\n" for line in lines)
        replaced = {"'/mnt/store'": f"'{self.store}'", "/etc/moorline.toml": str(self.toml)}
        for old, new in (*replaced.items(), ("sleep 5", "sleep 0.3"), *self.literals):
            assert old in text, old
            text = text.replace(old, new)
        return text

    def start(
        self, script: str = "", *, cwd: str | Path = "/", name: str = "",
        environment: Mapping[str, str] | None = None, stdin: str = "</dev/null",
    ) -> subprocess.Popen[str]:  # fmt: skip
        path = self.folder / DEPLOY
        path.write_text(script or self.script(), encoding="ascii", newline="")
        return subprocess.Popen(
            ["/bin/sh", "-c", f'exec "$@" {stdin}', "sh", *self.shell, name or str(path)],
            cwd=cwd,
            env={
                "REPORT": str(self.report),
                "TMPDIR": str(self.temporary),
                "PYTHONDONTWRITEBYTECODE": "1",  # nothing in /var/cache
                **(environment or {"PATH": os.environ["PATH"]}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="ascii",
            start_new_session=True,
        )

    def run(self, script: str = "", **options: Any) -> tuple[int, str]:
        """Exit status and output. All output is read to its end: so no child kept it open."""
        process = self.start(script, **options)
        output, _ = process.communicate(timeout=60)
        assert os.listdir(self.temporary) == [], "the copy of the agent was left behind"
        return process.returncode, output

    @property
    def called(self) -> Any:
        """How the fake agent was called; None when it did not run."""
        return json.loads(self.report.read_text()) if self.report.exists() else None


@pytest.fixture(params=SHELLS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    shell = SHELLS[request.param]
    if not shutil.which(shell[0]):
        pytest.skip(f"{shell[0]} is not installed")
    return Machine(tmp_path, shell)


# -- what it hands on -----------------------------------------------------------------------------


def test_it_runs_the_agent_with_the_bundle_and_the_store(machine: Machine) -> None:
    code, output = machine.run()

    assert code == 0
    assert "the agent ran\n" in output
    called = machine.called
    command, folder, store, *kept = called["argv"]
    assert (command, os.path.abspath(folder), store) == (
        "hook", str(machine.folder), str(machine.store)
    )  # fmt: skip
    assert kept == [machine.root]  # where settings may be kept
    assert called["isolated"] == 1
    assert called["program"].startswith(str(machine.temporary))
    assert called["mode"] == 0o600


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6, 7, 130])
def test_the_exit_status_is_the_agents(machine: Machine, code: int) -> None:
    environment = {"PATH": os.environ["PATH"], "CODE": str(code)}

    assert machine.run(environment=environment)[0] == code


def test_it_does_not_depend_on_the_working_directory(machine: Machine) -> None:
    for cwd, name in (
        ("/", ""),
        (machine.folder, DEPLOY),
        (machine.path, f"./{machine.folder.name}/{DEPLOY}"),
    ):
        code, output = machine.run(cwd=cwd, name=name)
        assert code == 0, output
        folder = os.path.join(machine.called["cwd"], machine.called["argv"][1])
        assert os.path.abspath(folder) == str(machine.folder)


def test_codedeploys_variables_arrive(machine: Machine) -> None:
    variables = {
        "LIFECYCLE_EVENT": "BeforeInstall", "DEPLOYMENT_ID": "d-1", "APPLICATION_NAME": "site",
        "DEPLOYMENT_GROUP_NAME": "prod", "DEPLOYMENT_GROUP_ID": "g", "n": "23", "a": "x", "d": "y",
    }  # fmt: skip

    code, output = machine.run(environment={"PATH": os.environ["PATH"], **variables})

    assert code == 0, output
    given = machine.called["environment"]
    assert {name: given[name] for name in list(variables)[:5]} == dict(list(variables.items())[:5])
    assert given["LC_ALL"] == "C"
    assert given["PATH"].startswith("/bin:/usr/bin:")


def test_an_empty_environment_and_a_closed_stdin_are_enough(machine: Machine) -> None:
    """CodeDeploy closes stdin; under `env -i` there is no PATH, no HOME, no locale."""
    fixed = {"LIFECYCLE_EVENT": "BeforeInstall"}

    code, output = machine.run(environment=fixed, stdin="<&-")

    assert code == 0, output
    assert machine.called["environment"]["PATH"].startswith("/bin:/usr/bin:")


def test_it_is_the_same_the_second_time(machine: Machine) -> None:
    assert machine.run()[0] == machine.run()[0] == 0


# -- which agent ----------------------------------------------------------------------------------


def local_copy(machine: Machine, content: bytes) -> Path:
    """A copy of the agent in a target root, as an earlier deploy left it."""
    root = machine.path / "root"
    machine.literals += ((machine.root, str(root)),)
    agents = root / ".moorline" / "agents"
    agents.mkdir(parents=True)
    (agents / f"{SHA}.pyz").write_bytes(content)
    return agents


def test_the_targets_own_copy_needs_no_store(machine: Machine) -> None:
    local_copy(machine, AGENT)
    shutil.rmtree(machine.store)

    code, output = machine.run()

    assert code == 0, output
    assert machine.called["argv"][2] == str(machine.store)


def test_a_damaged_copy_on_the_target_gives_way_to_the_stores(machine: Machine) -> None:
    local_copy(machine, AGENT + b"damaged, and longer")

    code, output = machine.run()

    assert code == 0, output
    assert "did NOT match" in output


@pytest.mark.parametrize("words", [True, False])
def test_an_agent_with_another_sha256_never_runs(machine: Machine, words: bool) -> None:
    machine.agent.write_bytes(AGENT + b"#")

    code, output = machine.run(machine.script(words=words))

    assert code == 3
    assert machine.called is None
    assert "FAILED" in output
    said = f"deploy failed: the agent in {machine.store} was changed. Publish again."
    assert (said in output) == words


def test_an_agent_without_end_does_not_fill_the_disk(machine: Machine) -> None:
    """Who can write the share may put anything there."""
    machine.agent.unlink()
    machine.agent.symlink_to("/dev/zero")

    began = time.monotonic()
    code, _ = machine.run()

    assert code == 3
    assert machine.called is None
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("words", [True, False])
def test_no_agent(machine: Machine, words: bool) -> None:
    machine.agent.unlink()
    machine.literals += (("= 24", "= 2"),)

    code, output = machine.run(machine.script(words=words))

    assert code == 4
    assert machine.called is None
    assert f"{machine.agent}" in output
    said = f"deploy failed: no agent in {machine.store}. Mount the store, or publish again.\n"
    assert output.endswith(said) == words
    assert len(output) < 2000 and max(map(len, output.splitlines())) < 500


def test_it_waits_for_a_store_that_is_still_being_mounted(machine: Machine) -> None:
    parked = machine.store.rename(machine.path / "not yet mounted")

    process = machine.start()
    time.sleep(1)
    assert process.poll() is None
    parked.rename(machine.store)

    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output


def test_it_asks_for_two_minutes(machine: Machine) -> None:
    text = bundle_files(BUNDLE, store="/mnt/store", root="")[DEPLOY].decode("ascii")

    assert "= 24 ]" in text and "sleep 5\n" in text  # 24 x 5 s
    assert text.count("timeout -s KILL 20 ") == 1
    assert text.count("$1/agent") == 1  # the mount is touched there and nowhere else


@pytest.mark.parametrize("instead", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_in_place_of_the_target_s_copy_is_left_behind(
    instead: Callable[[Path], None], machine: Machine
) -> None:
    """Neither waited for, nor copied until /tmp is full."""
    copy = local_copy(machine, b"") / f"{SHA}.pyz"
    copy.unlink()
    instead(copy)
    machine.literals += (("KILL 20", "KILL 1"),)

    code, output = machine.run()

    assert code == 0, output
    assert machine.called is not None


def test_a_mount_that_hangs_is_left_behind(machine: Machine) -> None:
    """A FIFO stands for it: opening one waits for ever, as a dead NFS server does."""
    machine.agent.unlink()
    os.mkfifo(machine.agent)
    machine.literals += (("KILL 20", "KILL 1"), ("= 24", "= 2"))

    began = time.monotonic()
    code, output = machine.run()

    assert code == 4, output
    assert 2 <= time.monotonic() - began < 20


@pytest.mark.parametrize("line", ['store = "{}"', 'store="{}"', 'users = ["a"]\nstore   =   "{}"'])
def test_the_host_may_say_where_the_store_is(machine: Machine, line: str) -> None:
    elsewhere = machine.store.rename(machine.path / "elsewhere")
    machine.toml.write_text("# this host\n" + line.format(elsewhere) + "\n")

    code, output = machine.run()

    assert code == 0, output
    assert machine.called["argv"][2] == str(elsewhere)


def test_other_lines_of_the_hosts_file_do_not_matter(machine: Machine) -> None:
    machine.toml.write_text('# store = "/other"\nroots = ["/srv"]\n')

    assert machine.run()[0] == 0
    assert machine.called["argv"][2] == str(machine.store)


# -- ends -----------------------------------------------------------------------------------------


def test_a_stopped_deployment_lets_the_agent_finish(machine: Machine) -> None:
    """CodeDeploy sends SIGTERM to the process group: the agent puts the old release back, and its
    file has to stay until then."""
    process = machine.start(environment={"PATH": os.environ["PATH"], "SLOW": "1"})
    ready = Path(f"{machine.report}.ready")
    while not ready.exists():
        assert process.poll() is None
        time.sleep(0.02)

    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=20)

    assert Path(f"{machine.report}.end").read_text() == "True"
    assert process.returncode not in (0, None)
    assert os.listdir(machine.temporary) == []


def test_stopped_while_it_waits_it_fails(machine: Machine) -> None:
    machine.agent.unlink()
    process = machine.start()
    while not os.listdir(machine.temporary):
        time.sleep(0.02)
    time.sleep(0.3)

    process.terminate()
    process.communicate(timeout=20)

    assert process.returncode not in (0, None)
    assert os.listdir(machine.temporary) == []


def test_without_a_temporary_folder_nothing_runs(machine: Machine) -> None:
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(machine.path / "missing")}

    code, _ = machine.run(environment=environment)

    assert code not in (0, None)
    assert machine.called is None


@pytest.mark.skipif(not shutil.which("busybox"), reason="busybox is not installed")
def test_only_busybox(tmp_path: Path) -> None:
    """A system whose timeout, sha256sum, head, mktemp are all busybox's."""
    machine = Machine(tmp_path, SHELLS["busybox"])
    programs = machine.path / "bin"
    programs.mkdir()
    for name in (
        "sh",
        "timeout",
        "sha256sum",
        "head",
        "mktemp",
        "grep",
        "cut",
        "rm",
        "sleep",
    ):
        (programs / name).symlink_to(shutil.which("busybox") or "")
    (programs / "python3").symlink_to(os.path.realpath(sys.executable))
    machine.literals += (("PATH=/bin:/usr/bin:$PATH", f"PATH={programs}"), ("KILL 20", "KILL 2"))
    local_copy(machine, b"damaged")
    parked = machine.agent.rename(machine.path / "parked")
    os.mkfifo(machine.agent)

    process = machine.start()
    time.sleep(1)
    parked.rename(machine.agent)
    output, _ = process.communicate(timeout=30)

    assert process.returncode == 0, output
    assert os.listdir(machine.temporary) == []


# -- how it gets there ----------------------------------------------------------------------------


def test_our_zip_and_the_zip_that_codepipeline_makes_of_the_folder(machine: Machine) -> None:
    """CodePipeline's zip has no modes; CodeDeploy adds the x for the owner and runs the file."""
    files = {
        **bundle_files(BUNDLE, store="/mnt/store", root=""),
        DEPLOY: machine.script().encode("ascii"),
    }
    write_bundle(Disk(), str(machine.path / "bundle"), files)
    archive = machine.path / "pipeline.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for name in NAMES:
            entry = zipfile.ZipInfo(name, date_time=(2026, 9, 1, 12, 0, 0))
            entry.create_system, entry.external_attr = 0, 0
            out.writestr(entry, (machine.path / "bundle" / name).read_bytes())
    ours = machine.path / "ours.zip"
    ours.write_bytes(zip_bytes({**files, DEPLOY: files[DEPLOY][:400]}))  # the test's path is long

    for number, path in enumerate((archive, ours)):
        place = machine.path / f"deployment {number}"
        subprocess.run(["unzip", "-qo", path, "-d", place], check=True)
        assert (place / BUILD).read_bytes() == files[BUILD]
        if path == archive:
            script = place / DEPLOY
            script.chmod(stat.S_IMODE(script.stat().st_mode) | 0o100)
            assert script.read_text(encoding="ascii") == machine.script()
            code, output = machine.run(name=str(script))
            assert code == 0, output
            assert os.path.abspath(machine.called["argv"][1]) == str(place)


def test_it_is_run_by_its_first_line(tmp_path: Path) -> None:
    """As CodeDeploy does it: the file itself, not `sh deploy.sh`."""
    machine = Machine(tmp_path, [])

    (machine.folder / DEPLOY).touch(mode=0o755)
    code, output = machine.run()

    assert code == 0, output


@pytest.mark.parametrize("shell", SHELLS.values(), ids=SHELLS)
def test_every_form_of_it_is_sound(shell: list[str]) -> None:
    hexes = [hashlib.sha256(bytes([n])).hexdigest() for n in range(3)]
    noise = base64.b64encode(hashlib.sha512(b"noise").digest(), b"-_").decode().rstrip("=")
    forms = {
        bundle_files(
            Bundle(BuildId(name), hexes[0], 812_345, hexes[1], hexes[2]), store=store, root=root
        )[DEPLOY]
        for name in ("142-0a1b2c3d", f"b{noise}")
        for store in ("/mnt/store", f"/mnt/{noise[10:60]}")
        for root in ("", "/srv/site", f"/srv/{noise[30:80]}")
    }
    optional = {(b"deploy failed" in form, b"/agents/" in form) for form in forms}
    assert optional == {(True, True), (False, True), (True, False), (False, False)}

    for form in forms:
        assert form.startswith(b"#!/bin/sh\nexport LC_ALL=C PATH=")
        assert form.isascii() and b"\r" not in form and form.endswith(b"\n")
        done = subprocess.run([*shell, "-n"], input=form, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
