"""The benchmarks that documents name are there, with the options that they name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT

DOCUMENTS = [ROOT / "bench/README.md", *PAGES]
NAMED = sorted(
    {script for page in DOCUMENTS for script in re.findall(r"\bbench/[\w/]+\.(?:py|sh)\b", page.read_text())}
)
# Of scripts that take options, as their page shows them: `compare.py` among the words is how a line names its script.
OPTIONS = re.findall(r"--[a-z][\w-]+", (ROOT / "bench/README.md").read_text())
WITH_OPTIONS = [
    script for script in NAMED if (ROOT / script).suffix == ".py" and "argparse" in (ROOT / script).read_text()
]


@pytest.mark.parametrize("script", NAMED)
def test_a_named_benchmark_is_there(script: str) -> None:
    assert (ROOT / script).is_file()


def test_every_benchmark_is_described() -> None:
    described = (ROOT / "bench/README.md").read_text()
    scripts = [path for path in (ROOT / "bench").glob("*.py") if "__main__" in path.read_text()]
    assert [path.name for path in scripts if f"bench/{path.name}" not in described] == []


def test_options_of_benchmarks_are_theirs() -> None:
    helps = [help_of(ROOT / script) for script in WITH_OPTIONS]
    assert [option for option in OPTIONS if not any(option in text for text in helps)] == []


def help_of(script: Path) -> str:
    asked = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True, cwd=ROOT)
    return asked.stdout
