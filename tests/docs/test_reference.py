"""The pages that follow from the settings and the commands are those that are committed."""

import subprocess
import sys

import click
import pytest

from proxy.cli import main
from tests.docs.pages import ROOT


def test_reference_is_what_the_code_says_now() -> None:
    asked = subprocess.run([sys.executable, "docs/reference.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert (asked.stderr, asked.returncode) == ("", 0)


def test_every_command_is_in_the_reference() -> None:
    commands = (ROOT / "docs/commands.md").read_text()
    names = main.list_commands(click.Context(main))
    assert [name for name in names if f"## `serinus {name}" not in commands] == []


@pytest.mark.parametrize("name", main.list_commands(click.Context(main)))
def test_a_command_is_called_as_it_is_listed(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name in (name, "python -m proxy.simulation")


def test_every_setting_and_every_option_has_a_meaning() -> None:
    rows = [
        line for page in ("configuration.md", "commands.md") for line in (ROOT / "docs" / page).read_text().splitlines()
    ]
    assert [row for row in rows if row.startswith("| `") and row.endswith("|  |")] == []
