"""The bundle: three files, a zip of at most 1,000 bytes, and a reader for whatever comes back."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import random
import stat
import string
import subprocess
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import FailingDisk, Stopped, StoppingDisk
from moorline.build import BuildId
from moorline.bundle import APPSPEC, BUILD, DEPLOY, NAMES, Bundle, read_bundle
from moorline.bundling import MAX_ZIP_BYTES, bundle_files, write_bundle, zip_bytes
from moorline.disk import Disk
from moorline.errors import ConfigError, Error, NotFound

LETTERS = string.ascii_letters + string.digits


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


BUNDLE = Bundle(BuildId("142-0a1b2c3d4e5f"), digest("m"), 812_345, digest("s"), digest("a"))


def files_of(
    bundle: Bundle = BUNDLE, *, store: str = "/mnt/efs/site", root: str = "/srv/site"
) -> dict[str, bytes]:
    return bundle_files(bundle, store=store, root=root)


def worst(seed: int) -> dict[str, bytes]:
    """Everything as long and as incompressible as it may legally be."""
    draw = random.Random(seed)

    def text(alphabet: str, count: int) -> str:
        return "".join(draw.choice(alphabet) for _ in range(count))

    def path() -> str:
        return "/" + text(LETTERS + "._-", 20) + "/" + text(LETTERS + "._-/", 37) + text(LETTERS, 1)

    bundle = Bundle(
        BuildId(text(LETTERS, 1) + text(LETTERS + "._-", 99)),
        text("0123456789abcdef", 64),
        draw.randrange(100 << 20, 256 << 20),
        text("0123456789abcdef", 64),
        text("0123456789abcdef", 64),
    )
    store, root = (candidate.replace("..", "._") for candidate in (path(), path()))
    assert len(bundle.id) == 100 and len(store) == len(root) == 60
    return bundle_files(bundle, store=store, root=root)


def zip_of(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


# -- the files and the zip ------------------------------------------------------------------------


def test_the_worst_legal_case_fits() -> None:
    assert max(len(zip_bytes(worst(seed))) for seed in range(500)) <= MAX_ZIP_BYTES


def test_an_ordinary_bundle_fits_with_all_its_words() -> None:
    files = files_of()

    assert len(zip_bytes(files)) < 970
    assert b"\nr='/srv/site'\n" in files[DEPLOY]
    assert b" $r/.moorline/agents/" in files[DEPLOY]
    assert b"deploy failed: no agent" in files[DEPLOY]


def test_a_longer_id_gives_up_words_before_the_local_copy() -> None:
    draw = random.Random(1)
    kept = []
    for length in range(1, 101):
        name = "i" + "".join(draw.choice(LETTERS) for _ in range(length - 1))
        script = files_of(dataclasses.replace(BUNDLE, id=BuildId(name)))[DEPLOY]
        kept.append((b"deploy failed" in script, b".moorline/agents" in script))

    assert set(kept) == {(True, True), (False, True)}
    assert kept[:40] == [(True, True)] * 40


def test_without_a_root_deploy_sh_asks_the_store_only() -> None:
    script = files_of(root="")[DEPLOY]

    assert b".moorline" not in script
    assert b"deploy failed: no agent" in script


def test_build_json_says_what_goes_live() -> None:
    assert json.loads(files_of()[BUILD]) == {
        "moorline": f"1 142-0a1b2c3d4e5f {digest('m')} 812345 {digest('s')}"
    }


def test_the_appspec_has_only_what_the_codedeploy_agent_knows() -> None:
    """No `files`, no ApplicationStop, no timeout beyond CodeDeploy's own 3,600 seconds."""
    assert files_of()[APPSPEC].decode().splitlines() == [
        "version: 0.0",
        "os: linux",
        "hooks:",
        " BeforeInstall:",
        " - location: deploy.sh",
        " ApplicationStart:",
        " - location: deploy.sh",
        " ValidateService:",
        " - location: deploy.sh",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_plain_ascii_with_line_feeds(name: str) -> None:
    for files in (files_of(), files_of(root=""), worst(0)):
        text = files[name].decode("ascii")
        assert "\r" not in text and "\t" not in text and "\0" not in text
        assert "@" not in text and "#?" not in text


@pytest.mark.parametrize(
    "path",
    ["", "mnt/efs", "/", "/mnt/a b", "/mnt/$(id)", "/mnt/a'b", "/mnt/a\nb", "/mnt/../etc",
     "/" + "x" * 200, "/mnt/\u00e9"],
)  # fmt: skip
def test_a_path_that_the_script_cannot_hold_is_refused(path: str) -> None:
    with pytest.raises(ConfigError):
        files_of(store=path)
    if path:
        with pytest.raises(ConfigError):
            files_of(root=path)


def test_the_zip_is_one_that_everybody_reads(tmp_path: Path) -> None:
    data = zip_bytes(files_of())
    (tmp_path / "bundle.zip").write_bytes(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(NAMES)
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.compress_type for entry in archive.infolist()} <= {0, 8}
        assert {name: archive.read(name) for name in NAMES} == files_of()

    subprocess.run(["unzip", "-qo", "bundle.zip", "-d", "out"], cwd=tmp_path, check=True)

    modes = {name: stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) for name in NAMES}
    assert modes == {APPSPEC: 0o644, BUILD: 0o644, DEPLOY: 0o755}


def test_content_that_does_not_compress_is_stored() -> None:
    data = zip_bytes({BUILD: bytes(range(256))})

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.getinfo(BUILD).compress_type == zipfile.ZIP_STORED


def test_a_zip_above_the_limit_is_refused() -> None:
    with pytest.raises(Error, match=r"1\d\d\d bytes, 1000 are allowed.*shorter id"):
        zip_bytes({BUILD: random.Random(1).randbytes(900)})


# -- writing --------------------------------------------------------------------------------------


def test_a_name_that_ends_in_zip_is_a_zip(tmp_path: Path) -> None:
    out = tmp_path / "made" / "bundle.zip"

    size = write_bundle(Disk(), str(out), files_of())

    assert out.read_bytes() == zip_bytes(files_of())
    assert size == out.stat().st_size
    assert os.listdir(out.parent) == ["bundle.zip"]
    assert read_bundle(Disk(), str(out)) == BUNDLE


def test_any_other_name_is_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "made" / "bundle"

    size = write_bundle(Disk(), str(out), files_of())

    assert {file.name: file.read_bytes() for file in out.iterdir()} == files_of()
    assert size == sum(len(data) for data in files_of().values())
    assert read_bundle(Disk(), str(out)) == BUNDLE


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_writing_again_replaces(tmp_path: Path, name: str) -> None:
    out = str(tmp_path / name)
    second = dataclasses.replace(BUNDLE, id=BuildId("143"))

    write_bundle(Disk(), out, files_of())
    write_bundle(Disk(), out, files_of(second))

    assert read_bundle(Disk(), out) == second


def test_an_empty_folder_is_used_and_the_rest_of_a_killed_writer_removed(tmp_path: Path) -> None:
    (tmp_path / f".{DEPLOY}.0123456789abcdef.tmp").write_bytes(b"half")

    write_bundle(Disk(), str(tmp_path), files_of())

    assert sorted(os.listdir(tmp_path)) == sorted(NAMES)


def test_a_folder_with_anything_else_is_refused_untouched(tmp_path: Path) -> None:
    for name in ("appspec.yaml", "notes.txt", "bad\nname"):
        (tmp_path / name).write_text("mine")

    with pytest.raises(ConfigError, match=r"holds 'appspec.yaml', 'bad\\nname', 'notes.txt'"):
        write_bundle(Disk(), str(tmp_path), files_of())

    assert sorted(os.listdir(tmp_path)) == ["appspec.yaml", "bad\nname", "notes.txt"]


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.zip").mkdir()

    for name in ("file", "file/bundle", "file/bundle.zip", "folder.zip"):
        with pytest.raises(ConfigError, match="is in the way"):
            write_bundle(Disk(), str(tmp_path / name), files_of())

    assert (tmp_path / "file").read_text() == "mine"
    assert os.listdir(tmp_path / "folder.zip") == []


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_a_killed_writer_leaves_a_bundle_that_can_be_read(tmp_path: Path, name: str) -> None:
    """At every step: the bundle of before, or the new one, and the next run tidies."""
    out = str(tmp_path / name)
    new = dataclasses.replace(BUNDLE, id=BuildId("143"), manifest_bytes=9)
    for step in range(1, 100):
        write_bundle(Disk(), out, files_of())
        try:
            write_bundle(StoppingDisk(step), out, files_of(new))
        except Stopped:
            assert read_bundle(Disk(), out) in (BUNDLE, new)
            continue
        break
    assert step > 5
    assert read_bundle(Disk(), out) == new


def test_a_disk_that_fails_is_an_error_in_words(tmp_path: Path) -> None:
    out = str(tmp_path / "bundle.zip")
    write_bundle(Disk(), out, files_of())

    for step in range(1, 5):
        with pytest.raises(Error, match="bundle failed"):
            write_bundle(FailingDisk(step), out, files_of(root=""))
        assert read_bundle(Disk(), out) == BUNDLE


# -- reading --------------------------------------------------------------------------------------


def folder_of(path: Path, members: dict[str, bytes]) -> Path:
    path.mkdir(exist_ok=True)
    for name, data in members.items():
        (path / name).write_bytes(data)
    return path


def test_deploy_sh_names_its_folder_by_its_own_path(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "bundle", files_of())

    assert read_bundle(Disk(), f"{folder}/deploy.sh/..") == BUNDLE


def test_a_relative_path_and_a_link_to_the_folder_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path / "bundle", files_of())
    (tmp_path / "link").symlink_to("bundle")
    monkeypatch.chdir(folder)

    assert read_bundle(Disk(), ".") == BUNDLE
    assert read_bundle(Disk(), "deploy.sh/..") == BUNDLE
    assert read_bundle(Disk(), str(tmp_path / "link")) == BUNDLE


def codepipeline_zip(folder: str = "", directories: bool = True) -> bytes:
    """As CodePipeline packs a folder: no modes, deflated, maybe a top folder and directories."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        names = [folder] * (directories and bool(folder)) + [folder + name for name in NAMES]
        for name in names:
            entry = zipfile.ZipInfo(name, date_time=(2026, 9, 1, 12, 0, 0))
            entry.create_system, entry.external_attr = 0, 0
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files_of().get(name[len(folder) :], b""))
    return out.getvalue()


@pytest.mark.parametrize("folder", ["", "bundle/"])
def test_the_zip_that_codepipeline_makes_of_the_folder(tmp_path: Path, folder: str) -> None:
    path = tmp_path / "artifact.zip"
    for directories in (True, False):
        path.write_bytes(codepipeline_zip(folder, directories))
        assert read_bundle(Disk(), str(path)) == BUNDLE


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is nothing at"):
        read_bundle(Disk(), str(tmp_path / "missing.zip"))


@pytest.mark.parametrize("missing", [BUILD, DEPLOY])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    members = {name: data for name, data in files_of().items() if name != missing}
    (tmp_path / "b.zip").write_bytes(zip_of(members))

    for path in (folder_of(tmp_path / "b", members), tmp_path / "b.zip"):
        with pytest.raises(ConfigError, match=f"it has no {missing}"):
            read_bundle(Disk(), str(path))


def words(*, version: str = "1", id: str = "b-1", one: str = "a" * 64, length: str = "5") -> bytes:
    return json.dumps({"moorline": f"{version} {id} {one} {length} {'b' * 64}"}).encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "'moorline' is missing"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 50_000, "not valid JSON"),
        (b'{"moorline":1}', "'moorline' must be a text"),
        (b'{"moorline":"1"}', "must be a format, an id"),
        (b'{"moorline":["1"]}', "must be a text"),
        (words(version="2"), "Use a newer moorline"),
        (words(version="\u2028"), "Use a newer moorline"),
        (words(id="../x"), "not a build id"),
        (words(id="x" * 101), "not a build id"),
        (words(id="x\u0661"), "must be a format, an id"),
        (words(id="x y"), "must be a format, an id"),
        (words(one="A" * 64), "must be a format, an id"),
        (words(one="a" * 63), "must be a format, an id"),
        (words(length="-1"), "must be a format, an id"),
        (words(length="1e3"), "must be a format, an id"),
        (words(length="\u0661"), "must be a format, an id"),
        (words(length="9" * 5000), "must be a"),
        (words() + b"x", "not valid JSON"),
    ],
)
def test_a_build_json_that_says_something_else(tmp_path: Path, content: bytes, reason: str) -> None:
    members = {**files_of(), BUILD: content}
    (tmp_path / "b.zip").write_bytes(zip_of(members))

    for path in (folder_of(tmp_path / "b", members), tmp_path / "b.zip"):
        with pytest.raises(ConfigError) as caught:
            read_bundle(Disk(), str(path))
        assert reason in caught.value.message
        assert len(caught.value.message) < 2000 and caught.value.message.isascii()


@pytest.mark.parametrize(
    "script", [b"", b"#!/bin/sh\n", b"a=1\n", b"a=" + b"b" * 64 + b"\na=" + b"c" * 64 + b"\n"]
)
def test_a_script_that_does_not_name_one_agent(tmp_path: Path, script: bytes) -> None:
    folder = folder_of(tmp_path / "b", {**files_of(), DEPLOY: script})

    with pytest.raises(ConfigError, match="does not name one agent"):
        read_bundle(Disk(), str(folder))


@pytest.mark.parametrize(
    "name",
    ["../build.json", "/build.json", "a/b/build.json", "c:\\build.json", "x",
     "BUILD.JSON", "./build.json", "../deploy.sh", "-rf", "caf\u00e9", "a\nb"],
)  # fmt: skip
def test_hostile_names_in_a_zip(tmp_path: Path, name: str) -> None:
    path = tmp_path / "b.zip"
    path.write_bytes(zip_of({**files_of(), name: files_of()[BUILD]}))

    with pytest.raises(ConfigError, match="is not a bundle: it holds "):
        read_bundle(Disk(), str(path))


@pytest.mark.parametrize("top", ["../", "./", "/", "a/../"])
def test_a_top_folder_that_leads_elsewhere(tmp_path: Path, top: str) -> None:
    path = tmp_path / "b.zip"
    path.write_bytes(zip_of({top + name: data for name, data in files_of().items()}))

    with pytest.raises(ConfigError, match="it holds"):
        read_bundle(Disk(), str(path))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in [*files_of().items(), (BUILD, words())]:
            archive.writestr(name, data)
    (tmp_path / "b.zip").write_bytes(out.getvalue())

    with pytest.raises(ConfigError, match="or holds it twice"):
        read_bundle(Disk(), str(tmp_path / "b.zip"))


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    path.write_bytes(zip_of({**files_of(), BUILD: b" " * (64 << 20)}))
    assert path.stat().st_size < 100_000

    with pytest.raises(ConfigError, match=r"build.json is larger than 65536 bytes"):
        read_bundle(Disk(), str(path))


def test_a_zip_that_lies_about_a_size(tmp_path: Path) -> None:
    """The directory promises 10 bytes where 64 MB come out."""
    data = bytearray(zip_of({**files_of(), BUILD: b" " * (64 << 20)}))
    for signature, at in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        where = data.rindex(signature)
        data[where + at : where + at + 4] = (10).to_bytes(4, "little")
    (tmp_path / "b.zip").write_bytes(data)

    with pytest.raises(ConfigError):
        read_bundle(Disk(), str(tmp_path / "b.zip"))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_stored_and_deflated_are_read(tmp_path: Path, method: int) -> None:
    (tmp_path / "b.zip").write_bytes(zip_of(files_of(), method))

    with pytest.raises(ConfigError, match="neither stored nor deflated"):
        read_bundle(Disk(), str(tmp_path / "b.zip"))


def test_no_zip_and_too_large_a_file(tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    for content in (b"", b"PK", b"not a zip", files_of()[BUILD]):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="it is no zip, or a damaged one"):
            read_bundle(Disk(), str(path))

    with path.open("wb") as file:
        file.truncate(4 << 30)
    with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
        read_bundle(Disk(), str(path))


@pytest.mark.parametrize("name", [BUILD, DEPLOY])
def test_something_else_in_place_of_a_file(tmp_path: Path, name: str) -> None:
    """A FIFO must not hang, a link must not be followed, a huge file must not be read."""
    folder = folder_of(tmp_path / "b", files_of())
    path = folder / name

    def refused() -> str:
        with pytest.raises(ConfigError, match="is not a bundle") as caught:
            read_bundle(Disk(), str(folder))
        if not path.is_dir():
            path.unlink()
        return caught.value.message

    path.unlink()
    os.mkfifo(path)
    assert "not a regular file" in refused()
    path.symlink_to("/etc/passwd")
    refused()
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert "larger than 65536 bytes" in refused()
    path.mkdir()
    refused()


def test_a_fifo_in_place_of_the_bundle(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "b.zip")

    with pytest.raises(ConfigError, match="not a regular file"):
        read_bundle(Disk(), str(tmp_path / "b.zip"))


def test_a_name_that_no_disk_takes(tmp_path: Path) -> None:
    for path in ("x" * 300, str(tmp_path / "a" / ("y" * 300))):
        with pytest.raises(Error):
            read_bundle(Disk(), path)


def read_back(data: bytes) -> Bundle:
    with tempfile.NamedTemporaryFile(suffix=".zip") as file:
        file.write(data)
        file.flush()
        return read_bundle(Disk(), file.name)


@given(st.data())
def test_a_damaged_zip_is_refused_or_says_the_same(data: st.DataObject) -> None:
    """Any byte changed, anywhere: never a traceback."""
    whole = bytearray(zip_bytes(files_of()))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.none(), st.integers(0, len(whole))))

    try:
        found = read_back(bytes(whole[:end]))
    except ConfigError as error:
        assert "\n" not in error.message and error.message.isascii()
    else:
        assert found.id


@given(st.binary(max_size=400))
def test_any_bytes_for_a_build_json(content: bytes) -> None:
    with pytest.raises(ConfigError):
        read_back(zip_of({**files_of(), BUILD: content}))


@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True),
    st.integers(0, 256 << 20),
    st.binary(min_size=1, max_size=8),
)
def test_what_is_written_is_read(name: str, length: int, seed: bytes) -> None:
    hexes = [hashlib.sha256(seed + bytes([n])).hexdigest() for n in range(3)]
    bundle = Bundle(BuildId(name), hexes[0], length, hexes[1], hexes[2])

    assert read_back(zip_bytes(files_of(bundle))) == bundle
