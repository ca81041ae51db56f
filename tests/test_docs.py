"""The documentation says what the program does: commands, configuration keys, exit codes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from moorline import config, errors, settings
from moorline.cli import moorline
from moorline.config import new_config_text, parse_config
from moorline.invocation import EXIT_CODES

ROOT = Path(__file__).resolve().parent.parent
CLI = ROOT / "docs" / "cli.md"
CONFIG = ROOT / "docs" / "moorline.toml"


def exit_codes() -> set[int]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return {0} | {kind.exit_code for kind in kinds if issubclass(kind, errors.Error)}


def test_the_command_reference_is_current() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "cli_reference.py")]

    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert CLI.read_text(encoding="utf-8") == printed, (
        "docs/cli.md is old. Run: python scripts/cli_reference.py > docs/cli.md"
    )


def test_every_command_has_its_section() -> None:
    sections = re.findall(r"^## moorline (\w+)$", CLI.read_text(encoding="utf-8"), re.MULTILINE)

    assert sections == list(moorline.commands)


def test_every_exit_code_is_in_the_help_and_in_the_reference() -> None:
    in_help = {int(code) for code in re.findall(r"^  (\d+) ", EXIT_CODES, re.MULTILINE)}
    text = CLI.read_text(encoding="utf-8")
    listed = text[text.index("**Exit codes.**") :].split("\n\n")[0]

    assert in_help == exit_codes()
    assert {int(code) for code in re.findall(r"\b(\d+)\b(?= \w)", listed)} == exit_codes()


def test_every_variable_is_in_the_reference() -> None:
    text = CLI.read_text(encoding="utf-8")
    variables = [value for name, value in vars(config).items() if name.endswith("_VARIABLE")]

    assert variables
    for variable in [*variables, "MOORLINE_ID"]:
        assert f"| `{variable}` |" in text


def test_the_reference_configuration_is_what_init_writes() -> None:
    assert CONFIG.read_text(encoding="utf-8") == new_config_text("shop", "/mnt/efs/shop", "pack"), (
        "docs/moorline.toml is old: write config.new_config_text('shop', '/mnt/efs/shop', 'pack')"
    )


def test_the_reference_configuration_can_be_read() -> None:
    found = parse_config(CONFIG.read_bytes(), str(CONFIG))

    assert (found.app, found.store) == ("shop", "/mnt/efs/shop")


def test_every_known_key_is_in_the_reference_configuration() -> None:
    text = CONFIG.read_text(encoding="utf-8")
    tables = {
        "": [key for key in config._KEYS if key == "app"],
        "store": config._STORE_KEYS,
        "publish": config._PUBLISH_KEYS,
        "target": settings._TARGET_KEYS,
    }
    for table, keys in tables.items():
        part = text if not table else text[text.index(f"\n[{table}]\n") :]
        for key in keys:
            assert re.search(rf"^(# )?{key} = ", part, re.MULTILINE), f"[{table}] {key}"
    for moment in settings._MOMENTS:
        assert f"[[hooks.{moment}]]" in text
    for key in settings._HOOK_KEYS:
        assert re.search(rf"^(# )?{key} = ", text[text.index("[[hooks.") :], re.MULTILINE), key
    for table in config._KEYS:
        assert table == "app" or re.search(rf"^(# )?\[+{table}[\].]", text, re.MULTILINE), table
