"""How `serinus serve` is told what to serve; what it does then is in tests/test_process.py."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from proxy.cli import main


@pytest.mark.parametrize("how", [(), ("--config",), ("-c",)])
def test_the_file_is_named_with_or_without_an_option(tmp_path: Path, how: tuple[str, ...]) -> None:
    file = tmp_path / "mistaken.yaml"
    file.write_text("listen: 8080\n")
    result = CliRunner().invoke(main, ["serve", *how, str(file)])
    assert result.exit_code == 1
    assert f"{file}:1: listen: 8080 is not an address: write 127.0.0.1:8080\n" in result.stderr


@pytest.mark.parametrize("how", [(), ("one.yaml", "--config", "other.yaml")])
def test_no_file_and_two_are_refused_with_what_to_write(how: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, ["serve", *how])
    assert result.exit_code == 2
    assert "name the configuration once: serinus serve FILE, or --config FILE" in result.stderr
