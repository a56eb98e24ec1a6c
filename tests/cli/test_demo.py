"""The demo needs nothing, and says how to try it."""

import re
import subprocess
import sys

from proxy.cli.demo import config
from proxy.controlplane.load import parse


def test_its_configuration_is_valid_without_warnings():
    urls = dict.fromkeys(("swift", "steady", "shaky"), "http://127.0.0.1:9001")
    loaded = parse(config(urls, 8080, 9090), {})
    assert not loaded.warnings
    assert [str(listener.address) for listener in loaded.settings.listen] == ["127.0.0.1:8080"]


def test_it_starts_prints_the_lines_to_try_and_ends():
    command = (sys.executable, "-m", "proxy", "demo", "--port", "0", "--admin-port", "0", "--seconds", "0")
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"curl -N http://127\.0\.0\.1:\d+/v1/chat/completions", done.stdout)
    assert re.search(r'OpenAI\(base_url="http://127\.0\.0\.1:\d+/v1"', done.stdout)
    assert "Traceback" not in done.stderr
