"""The command `moorline`: parse, call one verb of `workflow`, print, exit.

Each command is a function that returns what there is to say; `invocation` says it and turns errors
into exit codes. `docs/cli.md` is made from the texts here by scripts/cli_reference.py.

Each imports `workflow` itself: --help, --version, completion and a wrong option need none of it.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from moorline import __version__, output
from moorline.build import LAYOUTS
from moorline.config import STORE_VARIABLE, TARGET_VARIABLE
from moorline.errors import ConfigError
from moorline.invocation import EXIT_CODES, Invocation, Verbs, check_hook
from moorline.output import Outcome
from moorline.settings import MODES, checked_app


@click.group(
    cls=Verbs,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="moorline %(version)s")
def moorline() -> None:
    """Publish a build once to a shared mount; make it live by one symlink.

    \b
    Example:
      moorline init --store /mnt/efs/shop
      moorline publish public --bundle bundle
      moorline deploy bundle --target /srv/shop
      moorline rollback --target /srv/shop
    """


def main() -> NoReturn:
    """The entry point. Names that the terminal's encoding lacks are escaped, never an error."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(moorline.main())


# -- options --------------------------------------------------------------------------------------

store_option = click.option("--store", metavar="DIR", type=click.Path(),
                            help=f"The store. [variable {STORE_VARIABLE}]")  # fmt: skip
target_option = click.option("--target", metavar="DIR", type=click.Path(),
                             help=f"The target's root. [variable {TARGET_VARIABLE}]")  # fmt: skip
stage_option = click.option("--stage", metavar="NAME", default="",
                            help="The stage whose settings count, such as PROD.")  # fmt: skip
trust_option = click.option("--trust-store", is_flag=True,
                            help="Accept a digest that only the share vouches for.")  # fmt: skip
dry_run_option = click.option("--dry-run", is_flag=True,
                              help="Say what would be done; change nothing.")  # fmt: skip


# -- verbs that change something ------------------------------------------------------------------


@moorline.verb
@store_option
@click.option("--layout", type=click.Choice(LAYOUTS), default=LAYOUTS[0], show_default=True,
              help="How the store keeps content: mode link needs tree.")  # fmt: skip
@click.option("--app", metavar="NAME", help="The application's name. [this folder's name]")
def init(run: Invocation, store: str | None, layout: str, app: str | None) -> Outcome:
    """Make a store, and a commented moorline.toml here.

    A store or a moorline.toml that exists is left as it is.

    \b
    Example:
      moorline init --store /mnt/efs/shop --app shop
    """
    from moorline import workflow

    config = run.config(store=store, app=app)
    if not config.store:
        raise ConfigError(
            f"no store is named. Say where to make it: --store DIR, or set {STORE_VARIABLE}. "
            "It is a folder on the shared mount."
        )
    app = config.app or _folder_name()
    return output.initialised(workflow.init(config.store, app=app, layout=layout))


def _folder_name() -> str:
    name = os.path.basename(os.getcwd())
    try:
        return checked_app(name)
    except ConfigError as error:
        raise ConfigError(f"{error.message} Or name the application with --app.") from None


@moorline.verb
@click.argument("directory", metavar="DIR", type=click.Path())
@click.option("--id", metavar="ID", envvar="MOORLINE_ID",
              help="The build's id. [variable MOORLINE_ID, else made from CI's]")  # fmt: skip
@store_option
@click.option("--bundle", metavar="OUT", type=click.Path(),
              help="Write the bundle: a zip if OUT ends in .zip, else a folder.")  # fmt: skip
@dry_run_option
def publish(
    run: Invocation, directory: str, id: str | None, store: str | None, bundle: str | None,
    dry_run: bool,
) -> Outcome:  # fmt: skip
    """Store DIR as a build and print its id.

    Publishing the same id with the same content again changes nothing, and repairs what is damaged.

    \b
    Example:
      moorline publish public --bundle bundle
      MOORLINE_ID=$(moorline publish public --id "shop-$CODEBUILD_BUILD_NUMBER" --bundle out.zip)
    """
    from moorline import workflow

    if id == "":
        raise click.BadParameter("it is empty.", param_hint="'--id'")
    config = run.config(store=store)
    result = workflow.publish(
        directory, config=config, id=id, bundle=bundle, progress=run.progress, dry_run=dry_run
    )
    return output.published(result, store=config.store_path(), dry_run=dry_run)


@moorline.verb
@click.argument("what", metavar="BUNDLE_OR_ID", type=click.Path())
@target_option
@click.option("--mode", type=click.Choice(MODES), help="How to place the build. [the settings']")
@click.option("--check", "checks", metavar="CMD", multiple=True,
              help="One more check: a program and its words, or a URL. Repeatable.")  # fmt: skip
@stage_option
@store_option
@dry_run_option
def deploy(
    run: Invocation, what: str, target: str | None, mode: str | None, checks: tuple[str, ...],
    stage: str, store: str | None, dry_run: bool,
) -> Outcome:  # fmt: skip
    """Make a build live on a target: verify, place, switch, check.

    BUNDLE_OR_ID is a bundle (a folder or a zip), or the id of a build in the store. If anything
    fails, the release that was live stays live, or is live again.

    \b
    Example:
      moorline deploy bundle --target /srv/shop
      moorline deploy out.zip --target /srv/shop --check http://localhost/health
      moorline deploy shop-41 --target /srv/shop --mode link --check './bin/smoke --fast'
    """
    from moorline import workflow

    config = run.config(target=target, store=store)
    result = workflow.deploy(
        what, config=config, target=config.target or None, mode=mode,
        checks=tuple(map(check_hook, checks)), stage=stage,
        progress=run.progress, dry_run=dry_run,
    )  # fmt: skip
    return output.deployed(result, dry_run=dry_run)


@moorline.verb
@target_option
@click.option("--to", metavar="ID", help="The build to go back to. [the one before]")
@stage_option
@trust_option
@store_option
@dry_run_option
def rollback(
    run: Invocation, target: str | None, to: str | None, stage: str, trust_store: bool,
    store: str | None, dry_run: bool,
) -> Outcome:  # fmt: skip
    """Make the previous good release live again, or another one.

    A release that the target still holds comes back without the share.

    \b
    Example:
      moorline rollback --target /srv/shop
      moorline rollback --target /srv/shop --to shop-39
    """
    from moorline import workflow

    config = run.config(target=target, store=store)
    result = workflow.rollback(
        config=config, target=config.target or None, to=to, stage=stage, trust_store=trust_store,
        progress=run.progress, dry_run=dry_run,
    )  # fmt: skip
    return output.rolled_back(result, dry_run=dry_run)


# -- verbs that look ------------------------------------------------------------------------------


@moorline.verb
@store_option
def status(run: Invocation, store: str | None) -> Outcome:
    """Show what is live where.

    \b
    Example:
      moorline status
    """
    from moorline import workflow

    return output.target_lines(workflow.status(run.config(store=store)))


@moorline.verb
@store_option
def builds(run: Invocation, store: str | None) -> Outcome:
    """List the builds, the newest first.

    \b
    Example:
      moorline builds
    """
    from moorline import workflow

    return output.build_lines(workflow.builds(run.config(store=store)))


@moorline.verb
@click.argument("id", metavar="ID")
@store_option
def show(run: Invocation, id: str, store: str | None) -> Outcome:
    """Show one build; with -v, every file of it.

    \b
    Example:
      moorline show shop-41
    """
    from moorline import workflow

    result = workflow.show(id, config=run.config(store=store))
    return output.shown_build(result, with_entries=run.verbose)


@moorline.verb
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@store_option
def diff(run: Invocation, a: str, b: str, store: str | None) -> Outcome:
    """Show what changed from build A to build B.

    + is added, - removed, ~ changed.

    \b
    Example:
      moorline diff shop-40 shop-41
    """
    from moorline import workflow

    return output.changes(a, b, workflow.diff(a, b, config=run.config(store=store)))


@moorline.verb
@click.argument("id", metavar="ID")
@click.argument("directory", metavar="DIR", type=click.Path())
@store_option
def export(run: Invocation, id: str, directory: str, store: str | None) -> Outcome:
    """Write build ID as a plain, verified folder.

    DIR must not exist yet. Its path is printed.

    \b
    Example:
      moorline export shop-41 /tmp/shop-41
    """
    from moorline import workflow

    config = run.config(store=store)
    return output.exported(workflow.export(id, directory, config=config, progress=run.progress))


@moorline.verb
@target_option
@stage_option
def history(run: Invocation, target: str | None, stage: str) -> Outcome:
    """Show every step of every release on a target.

    \b
    Example:
      moorline history --target /srv/shop
    """
    from moorline import workflow

    root = run.config(target=target).target_root(stage)
    return output.release_lines(root, workflow.history(root))


@moorline.verb
@click.argument("id", metavar="[ID]", required=False)
@target_option
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Every build in the store, and the agents and settings that it keeps.",
)
@store_option
def verify(
    run: Invocation, id: str | None, target: str | None, everything: bool, store: str | None
) -> Outcome:
    """Read every byte and list every difference.

    Of build ID in the store, of what a target serves, or of every build in the store.

    \b
    Example:
      moorline verify shop-41
      moorline verify --target /srv/shop
      moorline verify --all
    """
    from moorline import workflow

    if sum((id is not None, target is not None, everything)) > 1:
        raise click.UsageError("an ID, --target and --all exclude each other.")
    config = run.config(store=store, target=target)
    if id is None and not everything and not config.target:
        raise click.UsageError("nothing to verify is named: give an ID, --target DIR or --all.")
    on_target = not (id or everything)
    results = workflow.verify(
        config=config, id=id, everything=everything, progress=run.progress,
        target=config.target if on_target else None,
    )  # fmt: skip
    return output.verified(results, everything=everything, target=on_target)


# -- keeping builds -------------------------------------------------------------------------------


@moorline.verb
@click.argument("id", metavar="ID")
@click.option("--reason", required=True, metavar="TEXT", help="Why the build has to stay.")
@store_option
def pin(run: Invocation, id: str, reason: str, store: str | None) -> Outcome:
    """Keep build ID, whatever the rules for old builds say.

    \b
    Example:
      moorline pin shop-41 --reason "the audit of June"
    """
    from moorline import workflow

    return output.pinned(workflow.pin(id, config=run.config(store=store), reason=reason))


@moorline.verb
@click.argument("id", metavar="ID")
@store_option
def unpin(run: Invocation, id: str, store: str | None) -> Outcome:
    """Remove the pin that a person put on build ID.

    What a target needs stays pinned by the target.

    \b
    Example:
      moorline unpin shop-41
    """
    from moorline import workflow

    return output.unpinned(id, workflow.unpin(id, config=run.config(store=store)))


@moorline.verb
@click.option("--site", metavar="DIR", type=click.Path(),
              help="A build of your own. [a site of 3,000 files, made for this]")  # fmt: skip
@click.option("--folder", metavar="DIR", type=click.Path(),
              help="Where to work. [a temporary folder]")  # fmt: skip
def demo(run: Invocation, site: str | None, folder: str | None) -> Outcome:
    """Show all of it in a folder, beside the classic way.

    It needs no AWS and touches nothing outside of the folder.

    \b
    Example:
      moorline demo
      moorline demo --site public
    """
    from moorline import screen
    from moorline.demo import run_demo  # with all that only it needs

    console = screen.data_console(as_json=run.as_json, quiet=run.quiet)
    fields = run_demo(folder, site, console, run.as_json, run.progress)
    return Outcome(fields)
