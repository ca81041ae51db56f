"""Deliberate breaks of the source, one for each barrier, order and check that a promise rests on.

`tests/mutations/run.py` (make mutations) applies each to a private copy and expects the tests named
here to fail; tests/test_mutations.py holds this table against the source, so it cannot rot.
"""

from __future__ import annotations

from typing import NamedTuple

STEPS = "tests/crash/test_every_step.py::test_whatever_happens_at_any_operation"
POWER = "tests/crash/test_power_loss.py::test_the_power_goes_at_any_moment"
AFTER = (
    "tests/crash/test_power_loss.py::test_the_power_goes_while_a_run_takes_up_what_a_dead_one_left"
)
ACTORS = "tests/crash/test_two_actors.py::test_another_verb_at_any_step"
HALVES = "tests/crash/test_halves.py::test_two_verbs_in_turns"


class Edit(NamedTuple):
    """In src/moorline/<file>: `old`, which stands there exactly once, becomes `new`."""

    file: str
    old: str
    new: str


class Mutation(NamedTuple):
    """`invariant` is what it breaks; at least one of `tests` must fail."""

    name: str
    invariant: str
    tests: tuple[str, ...]
    edits: tuple[Edit, ...]


def mutation(name: str, invariant: str, *edits: tuple[str, str, str], by: str) -> Mutation:
    return Mutation(name, invariant, (by,), tuple(Edit(*edit) for edit in edits))


def left_out(name: str, invariant: str, file: str, old: str, by: str) -> Mutation:
    """A statement that is not executed; its last line goes, what stands before it is the anchor."""
    lines = old.splitlines(keepends=True)
    indent = lines[-1][: len(lines[-1]) - len(lines[-1].lstrip())]
    return mutation(name, invariant, (file, old, "".join(lines[:-1]) + f"{indent}pass\n"), by=by)


BARRIERS = (
    left_out("no fsync of the pack", "I1", "layout/pack_draft.py",
             "            writer.finish()\n            self.disk.sync(fd)\n",
             by=f"{POWER}[publish-second-pack]"),
    mutation("no fsync of packs/", "I1",
             ("layout/pack_draft.py", "        self.disk.sync(self.packs)\n", ""),
             by=f"{POWER}[publish-second-pack]"),
    mutation("no fsync of the manifest", "I1",
             ("publishing.py",
              "write_file(self.disk, STORED, text.wait(), reservation.folder, private=True)",
              "fd = self.disk.create(STORED, 0o644, reservation.folder)\n"
              "        self.disk.write(fd, text.wait())\n"
              "        self.disk.close(fd)"),
             by=f"{POWER}[publish-second-pack]"),
    mutation("no fsync of build.json and all other small files", "I1",
             ("files.py", "        disk.write(fd, data)\n        disk.sync(fd)\n",
              "        disk.write(fd, data)\n"),
             by=f"{POWER}[publish-second-pack]"),
    left_out("no fsync of the index", "I1", "reserving.py",
             "            self.disk.write(fd, closing(self.named, index))\n"
             "            self.disk.sync(fd)\n",
             by=f"{POWER}[publish-second-pack]"),
    mutation("no fsync of sequence/", "I1",
             ("reserving.py", "        self.disk.sync(sequence)\n", ""),
             by=f"{POWER}[publish-second-pack]"),
    left_out("no fsync of the staging folder", "I1", "publishing.py",
             "        self.disk.sync(reservation.folder)\n", by=f"{POWER}[publish-second-pack]"),
    mutation("no syncfs after a tree", "I1",
             ("layout/tree_draft.py",
              "        self.disk.sync_all(self.staging)\n        linked", "        linked"),
             by=f"{POWER}[publish-second-tree]"),
    mutation("no fsync of builds/ after the commit", "I1",
             ("publishing.py", "        self.disk.sync(builds)\n        self.disk.sync(incoming)\n",
              "        self.disk.sync(incoming)\n"),
             by=f"{POWER}[publish-second-pack]"),
    mutation("no fsync of incoming/ after the commit", "I1",
             ("publishing.py", "        self.disk.sync(builds)\n        self.disk.sync(incoming)\n",
              "        self.disk.sync(builds)\n"),
             by=f"{POWER}[publish-second-pack]"),
    left_out("no fsync of the folder of a replaced file", "I2", "files.py",
             "            disk.unlink(temporary, at)\n        raise\n    disk.sync(at)\n",
             by=f"{POWER}[deploy-link-first-tree]"),
    left_out("no syncfs before the switch", "I2", "preparing.py",
             "            self.disk.sync_all(fd)\n", by=f"{POWER}[deploy-copy-later-pack]"),
    left_out("no fsync of the history", "I2", "target.py",
             '                self.disk.write(fd, (b"\\n" if torn else b"") + row.text())\n'
             "                self.disk.sync(fd)\n",
             by=f"{POWER}[deploy-copy-later-pack]"),
    left_out("no fsync of the way to the first row", "I2", "target.py",
             "                    self._sync_way(folder)\n", by=f"{POWER}[deploy-copy-first-pack]"),
    left_out("no fsync of the target after the switch", "I2", "target.py",
             '                self.disk.unlink(b"current", self.fd)\n'
             "        self.disk.sync(self.fd)\n",
             by=f"{POWER}[deploy-copy-later-pack]"),
    mutation("no fsync of builds/ after a removal", "I4",
             ("cleaning.py", "        store.disk.sync(trash)\n        store.disk.sync(builds)\n",
              "        store.disk.sync(trash)\n"),
             by=f"{POWER}[remove-pack]"),
    mutation("no fsync of releases/ before its old ones are unlinked", "I7",
             ("releases.py", "    if names:\n        target.disk.sync(releases)\n", ""),
             by=f"{POWER}[target-clean-pack]"),
    left_out("a build that a dead run listed is not made durable", "I1", "repairing.py",
             "            self._settle(opened)\n", by=f"{AFTER}[publish-first-pack]"),
    left_out("a removal that a dead run made is not made durable", "I1", "cleaning.py",
             "    _settle(store)\n", by=f"{AFTER}[remove-and-clean-pack]"),
    left_out("a manifest that a dead run kept is not made durable", "I2", "target.py",
             "                if read_file(self.disk, name, fd, most=len(data)) == data:\n"
             "                    self.disk.sync(fd)  # who put it there may have died before "
             "doing that\n",
             by=f"{AFTER}[deploy-link-later-tree]"),
    mutation("agent and settings that a dead run left are not made durable", "I1",
             ("store.py", "        if held:\n", "        if not held:\n"),
             by=f"{AFTER}[publish-first-pack]"),
    mutation("no fsync of ledger/ with a new folder", "I4",
             ("ledger/directory.py", "            if make:\n", "            if not make:\n"),
             by=f"{POWER}[pin-pack]"),
    left_out("a store that a dead run made is not made durable", "I1", "founding.py",
             "            disk.sync(root)  # who made it may have died before doing that\n",
             by=f"{AFTER}[init-pack]"),
    mutation("an error of close is overlooked", "I1",
             ("files.py", "            self.disk.close(self.fd)\n        else:",
              "            with contextlib.suppress(OSError):\n"
              "                self.disk.close(self.fd)\n        else:"),
             by=f"{STEPS}[deploy-copy-later-pack]"),
    mutation("an error of syncfs is overlooked", "I1",
             ("layout/tree_draft.py",
              "        self.disk.sync_all(self.staging)\n        linked",
              "        with contextlib.suppress(OSError):\n"
              "            self.disk.sync_all(self.staging)\n        linked"),
             by=f"{STEPS}[publish-second-tree]"),
)  # fmt: skip

ORDERS = (
    mutation("the build is listed before its index is complete", "I1",
             ("publishing.py", "        reservation.complete(draft.finish(",
              "        self._commit(reservation, build)\n"
              "        reservation.complete(draft.finish("),
             ("publishing.py", "            committed = self._commit(reservation, build)\n",
              "            committed = True\n"),
             by=f"{STEPS}[publish-second-pack]"),
    mutation("current is switched before the history says so", "I2",
             ("golive.py",
              '            self.target.record(release.at("intended", int(self.disk.now())))\n', ""),
             ("golive.py", "            self.target.switch(release.place)\n",
              "            self.target.switch(release.place)\n"
              '            self.target.record(release.at("intended", int(self.disk.now())))\n'),
             by=f"{STEPS}[deploy-copy-later-pack]"),
    mutation("current is removed and made anew", "I2",
             ("target.py",
              '            self.disk.rename(temporary, b"current", self.fd, self.fd)\n',
              "            with contextlib.suppress(FileNotFoundError):\n"
              '                self.disk.unlink(b"current", self.fd)\n'
              '            self.disk.rename(temporary, b"current", self.fd, self.fd)\n'),
             by=f"{STEPS}[deploy-copy-later-pack]"),
    mutation("packs are named after looking at them", "I4",
             ("reserving.py",
              "            self.disk.write(self._index, opening(dict(self.named)))\n",
              "            pass\n"),
             ("reserving.py", "            self.disk.write(fd, closing(self.named, index))\n",
              "            self.disk.write(fd, opening(dict(self.named)))\n"
              "            self.disk.write(fd, closing(self.named, index))\n"),
             by=f"{ACTORS}[publish, cleaner of a removed base, pack]"),
    mutation("the pin comes after the listing", "I4",
             ("preparing.py", "                self._pin(store)\n", ""),
             ("preparing.py",
              "                    self._place_from(store, opened, release, rows, progress)\n",
              "                    self._pin(store)\n"
              "                    self._place_from(store, opened, release, rows, progress)\n"),
             by=f"{ACTORS}[deploy, removal, pack]"),
    mutation("the removal is announced after the pins are read", "I4",
             ("cleaning.py", "    token = ledger.begin_removing(id, reason, now)\n",
              "    pins, targets = ledger.pins(), ledger.targets()\n"
              "    token = ledger.begin_removing(id, reason, now)\n"),
             ("cleaning.py", "for t in ledger.targets()", "for t in targets"),
             ("cleaning.py", "for pin in ledger.pins()", "for pin in pins"),
             by=f"{ACTORS}[removal, deploy, pack]"),
    mutation("a removed build is unlinked in its place", "I1",
             ("cleaning.py", "            store.disk.rename(id, name, builds, trash)\n",
              "            remove_tree(store.disk, id.encode(), builds)\n"),
             by=f"{STEPS}[remove-pack]"),
    mutation("an old release is unlinked in its place", "I7",
             ("releases.py",
              "        for name in doomed:\n"
              "            target.disk.rename(name, _REMOVING + name[:200], releases, "
              "releases)\n",
              ""),
             ("releases.py",
              "        _remove(target, [_REMOVING + name[:200] for name in doomed], releases)\n",
              "        _remove(target, doomed, releases)\n"),
             by=f"{STEPS}[target-clean-pack]"),
    mutation("packs are looked for in builds/ before incoming/", "I1",
             ("cleaning.py", '(b"incoming", b"builds", b"trash")',
              '(b"builds", b"incoming", b"trash")'),
             by=f"{HALVES}[publish, cleaner, pack]"),
    mutation("a store has its marker before its folders", "I1",
             ("founding.py",
              "            disk.sync(root)  # who finds the marker finds the folders\n", ""),
             by=f"{POWER}[init-pack]"),
)  # fmt: skip

CHECKS = (
    mutation("the manifest is not compared with its digest", "I5",
             ("store.py", "            return Manifest.parse(text, digest)\n",
              "            return Manifest.parse(text)\n"),
             by="tests/test_preparing.py::test_a_manifest_that_names_other_content_is_refused"),
    mutation("settings and agent are not compared with their digest", "I5",
             ("store.py", "        if hashlib.sha256(data).hexdigest() != digest:\n",
              "        if not digest:\n"),
             by="tests/test_preparing.py::test_changed_settings_are_refused"),
    mutation("deploy.sh runs any agent", "I5",
             ("deploy.sh.in", 'echo "$a  $d"|sha256sum -c||', 'echo "$a  $d"||'),
             by="tests/test_deploy_sh.py::test_an_agent_with_another_sha256_never_runs"),
    mutation("what is read from the share is not compared", "I5",
             ("place.py", 'return "" if digest == entry.digest else "content differs"\n',
              'return ""\n'),
             by="tests/test_preparing.py::test_a_changed_pack_is_refused"),
    mutation("what the target holds is not compared", "I5",
             ("place.py", "if hash_file(disk, fd, size, buffer) != (digest, size):\n",
              "if not hash_file(disk, fd, size, buffer):\n"),
             by="tests/test_place.py"),
    mutation("extra names are overlooked", "I5",
             ("verifying.py", "        for name, kind in found.items():\n",
              "        for name, kind in list(found.items())[:0]:\n"),
             by="tests/test_preparing.py::test_mode_link_refuses_every_change_of_the_tree"),
    mutation("names in a large directory are overlooked", "I5",
             ("verifying.py", "there = self._here.names(path, *self._children[path], looked)\n",
              "there = self._children[path][1]\n"),
             by="tests/test_verifying.py::test_names_of_a_large_directory_are_compared_as_a_whole"),
    mutation("only the first part of a large directory is read", "I5",
             ("verifying.py", "for part in _parts(path, there):\n",
              "for part in list(_parts(path, there))[:1]:\n"),
             by="tests/test_verifying.py::test_every_file_of_a_large_directory_is_read"),
    mutation("contents of packs are overlooked by verify", "I5",
             ("layout/pack_check.py", "window.digest(offset, length) != digest\n",
              "not window.digest(offset, length)\n"),
             by="tests/test_layout_pack_check.py::"
             "test_a_bit_anywhere_is_found_and_only_there"),
    mutation("the end of a run is overlooked by verify", "I5",
             ("layout/pack_check.py", "        yield pack, run\n\n\nclass", "\n\nclass"),
             by="tests/test_layout_pack_check.py::"
             "test_runs_hold_every_content_once_and_fit_into_a_message"),
    mutation("modes are overlooked", "I5",
             ("verifying.py", "        if found & 0o7777 != mode:\n",
              "        if found & 0o170000 == 0:\n"),
             by="tests/test_preparing.py::test_mode_link_refuses_every_change_of_the_tree"),
    mutation("where links lead is overlooked", "I5",
             ("verifying.py", "        if target != expected:\n", "        if not target:\n"),
             by="tests/test_preparing.py::test_mode_link_refuses_every_change_of_the_tree"),
    mutation("content is overlooked", "I5",
             ("verifying.py", "        elif digest != expected:\n",
              "        elif not digest:\n"),
             by="tests/test_preparing.py::test_mode_link_refuses_every_change_of_the_tree"),
    mutation("links are followed when a file is opened", "I5",
             ("disk.py", "_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW |",
              "_READ_FLAGS = os.O_RDONLY |"),
             by="tests/test_disk.py::test_a_link_is_neither_opened_nor_followed"),
    mutation("links are followed when a folder is opened", "I5",
             ("disk.py", "os.O_DIRECTORY | os.O_NOFOLLOW |", "os.O_DIRECTORY |"),
             by="tests/test_disk.py::test_a_link_is_neither_opened_nor_followed"),
    mutation("anybody may own the target", "I5",
             ("target.py", "    if status.st_uid != user:\n", "    if status.st_uid < 0:\n"),
             by="tests/test_target.py::test_a_folder_of_another_user_is_refused_with_the_chown"),
    mutation("anybody may write the target", "I5",
             ("target.py", "    if status.st_mode & 0o022:\n", "    if status.st_mode < 0:\n"),
             by="tests/test_target.py::test_a_folder_that_others_can_write_is_refused_with_the_chmod"),
    mutation("the host's policy is overlooked", "I5",
             ("preparing.py", "        policy.check(self.settings, self.target.root, "
              "self.wanted.mode, user)\n", ""),
             by="tests/test_preparing.py::test_the_host_s_own_word_is_kept"),
    mutation("a hook that names no user is nobody", "I5",
             ("settings.py", "{hook.user or user for hook in hooks if hook.run}",
              "{hook.user for hook in hooks if hook.user}"),
             by="tests/test_preparing.py::test_a_hook_that_names_no_user_is_who_deploys"),
    mutation("a hook of root runs what the release's owner wrote", "I5",
             ("hooks.py", "not moment.private_copy and _unchanged(disk, moment, user)",
              "not moment.private_copy"),
             by="tests/hostile/test_application_user.py::"
             "test_a_hook_of_root_never_runs_a_program_that_the_owner_changed"),
    mutation("a number in sequence/ may be any", "I1",
             ("store.py", "    return plain and int(name) <= MOST_SEQUENCE\n",
              "    return plain\n"),
             by="tests/hostile/test_tickets.py::test_a_number_that_no_publish_gave_is_passed_over"),
    mutation("a row of an index may break over lines", "I4",
             ("layout/index.py", """body.translate(None, _NUMBERS) != b"   \\n" * lines""",
              "not body.isascii()"),
             by="tests/hostile/test_parsers.py::test_the_corpus[index]"),
    mutation("current may have changed before the switch", "I3",
             ("golive.py",
              "if self.target.current() not in (deploying.previous, release.place):\n",
              "if not release.place:\n"),
             by="tests/test_golive.py::test_a_switch_is_refused_when_another_was_faster"),
    mutation("current may have changed before the put-back", "I3",
             ("golive.py", "        if self.target.current() != release.place:\n",
              "        if not release.place:\n"),
             by="tests/test_golive.py::test_a_failed_check_puts_back_only_what_is_still_its_own"),
    mutation("an old proof of a tree on the share is believed", "I5",
             ("preparing.py", "0 <= int(self.disk.now()) - deploying.prepared <= FRESH_S\n",
              "int(self.disk.now()) >= deploying.prepared\n"),
             by="tests/test_golive.py::test_mode_link_proves_again_when_the_switch_comes_late"),
    mutation("a deploy does not ask what is being removed", "I4",
             ("preparing.py",
              "if self.wanted.id in DirectoryLedger(self.disk, store.root).removing():\n",
              "if not self.wanted.id:\n"),
             by=f"{HALVES}[deploy, removal, pack]"),
    mutation("a pin does not ask what is being removed", "I4",
             ("workflow.py", "        if made.id not in store.ids() or made.id in "
              "ledger.removing():\n", "        if not made.id:\n"),
             by=f"{ACTORS}[removal, pin, pack]"),
    mutation("an export has its name from the first", "I7",
             ("exporting.py",
              '    temporary = b".%s.%s.tmp" % (name[:200], disk.token().encode())\n',
              "    temporary = name\n"),
             by=f"{STEPS}[export-pack]"),
    mutation("Ctrl-C in a fork is lost", "I3",
             ("interrupts.py", "        if threading.current_thread() is "
              "threading.main_thread():", "        if not threading.main_thread():"),
             by="tests/test_interrupts.py"),
    mutation("two verbs may hold a target", "I3",
             ("disk.py", "        except BlockingIOError:\n            return False\n",
              "        except BlockingIOError:\n            return True\n"),
             by="tests/test_target.py::test_a_busy_target_is_a_conflict_after_the_wait"),
    mutation("an id may get other content", "I6",
             ("repairing.py", "    if digest != source.manifest.digest:\n",
              "    if not digest:\n"),
             by="tests/contract/test_layouts.py::test_other_content_under_the_same_id_is_refused"),
    mutation("a source may change while it is read", "I5",
             ("source.py", "        if state.hexdigest() != entry.digest:\n",
              "        if not entry.digest:\n"),
             by="tests/contract/test_layouts.py::"
                "test_a_source_that_changed_after_the_scan_is_not_published"),
    mutation("a repeated link that worked is taken for another's", "I1",
             ("reserving.py", "            if mine is None or mine.token != build.token:\n",
              "            if mine is not None:\n"),
             by="tests/test_publishing.py::"
                "test_a_link_that_says_eexist_after_it_succeeded_is_recognised"),
    mutation("a commit that worked and said it did not is taken for none", "I1",
             ("publishing.py", "                return opened.build.token == build.token\n",
              "                return not opened\n"),
             by="tests/test_publishing.py::"
                "test_a_commit_that_says_enoent_after_it_succeeded_is_recognised"),
    mutation("the build of another publish is taken for one's own", "I6",
             ("publishing.py", "                return opened.build.token == build.token\n",
              "                return opened.build.id == build.id\n"),
             by="tests/test_publishing.py::"
                "test_a_build_of_another_publish_is_not_taken_for_this_one"),
    left_out("whose a file of code is is not asked", "I5", "compiled.py",
             "is no such file\")\n        _refuse_foreign(status)\n",
             by="tests/hostile/test_compiled_code.py"),
    mutation("whose a folder of code is is not asked", "I5",
             ("compiled.py", "        _refuse_foreign(os.fstat(fd))\n", "        pass\n"),
             by="tests/hostile/test_compiled_code.py"),
    mutation("whose the folders above code are is not asked", "I5",
             ("compiled.py", "            _refuse_foreign(os.fstat(fd), sticky=True)\n", ""),
             by="tests/hostile/test_compiled_code.py"),
    mutation("a link is followed to code", "I5",
             ("compiled.py", "_FILE = os.O_RDONLY | os.O_NOFOLLOW |", "_FILE = os.O_RDONLY |"),
             by="tests/hostile/test_compiled_code.py"),
    mutation("a link is followed to a folder of code", "I5",
             ("compiled.py", "os.O_DIRECTORY | os.O_NOFOLLOW |", "os.O_DIRECTORY |"),
             by="tests/hostile/test_compiled_code.py"),
    mutation("damaged code is believed", "I5",
             ("compiled.py", "    if head + end != _header(digest, body):",
              "    if head[:80] + end != _header(digest, body)[:80] + end:"),
             by="tests/test_compiled.py::test_a_flipped_bit_anywhere_is_found"),
    mutation("what a publish had begun stays when its source is refused", "I7",
             ("publishing.py", "            reservation.abandon()\n\n    def __enter__",
              "            reservation.close()\n\n    def __enter__"),
             by="tests/test_beginning.py::"
                "test_a_source_that_is_refused_after_all_leaves_nothing"),
    mutation("a tree lets others in while it grows", "I1",
             ("layout/tree_draft.py", 'disk.make_directory(b"tree", 0o700, staging)',
              'disk.make_directory(b"tree", 0o755, staging)'),
             by="tests/test_beginning.py::test_a_tree_lets_nobody_in_before_it_is_whole"),
    left_out("a write that was lost while a copy was made is not told of", "I2", "place.py",
             "            self._fetch(damaged)\n            self._flushing.finish()\n",
             by="tests/test_place.py::"
                "test_a_write_that_was_lost_while_files_were_made_fails_the_deploy"),
)  # fmt: skip

MUTATIONS = (*BARRIERS, *ORDERS, *CHECKS)
