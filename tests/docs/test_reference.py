"""The pages that follow from the settings and the commands are those that are committed."""

import subprocess
import sys

from proxy.cli import main
from tests.docs.pages import ROOT


def test_reference_is_what_the_code_says_now() -> None:
    asked = subprocess.run([sys.executable, "docs/reference.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert (asked.stderr, asked.returncode) == ("", 0)


def test_every_command_is_in_the_reference() -> None:
    commands = (ROOT / "docs/commands.md").read_text()
    assert [name for name in main.commands if f"## `serinus {name}" not in commands] == []
