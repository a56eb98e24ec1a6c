"""What an operator reads about a wrong configuration, word for word: `config_errors/NAME.yaml` gives `NAME.expected`.

After a change of words, run with UPDATE_GOLDEN=1 and read the difference.
"""

import os
import re
from pathlib import Path

import pytest

from proxy.controlplane.load import parse
from proxy.controlplane.problems import ConfigInvalid

CASES = sorted((Path(__file__).parent / "config_errors").glob("*.yaml"))
ENVIRON = {
    "OPENAI_KEY": "sk-7f3a9c",
    "AZURE_KEY": "d41d8cd9",
    "WEB_KEY": "srn_web_55e1",
    "SAME_KEY": "srn_web_55e1",
    "OPS_TOKEN": "0ps-t0ken",
    "EMPTY": "",
    "QUOTED": '"sk-quoted-9"',
    "PADDED": "sk-padded-9 ",
    "TWO_LINES": "srn_first\nsrn_second",
    "WITH_BELL": "sk-bell\a9",
}
JARGON = re.compile(
    r"(?i:input should|extra inputs|not permitted|field required|valid (string|integer|dictionary|list|tuple|boolean))"
    r"|(?i:value error|pydantic|\[type=|unable to parse|instance of|at least \d+ items?|literal)"
    r"|\b(tuple|dict|str|int|bool|None)\b|does not fit here"
)


def told(text: str) -> str:
    try:
        warnings = parse(text, ENVIRON, base=Path("/nowhere")).warnings
        return "".join(f"warning: {warning}\n" for warning in warnings)
    except ConfigInvalid as invalid:
        lines = [*map(str, invalid.problems), *(f"warning: {warning}" for warning in invalid.warnings)]
        return "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_errors_are_those_expected(case: Path) -> None:
    expected = case.with_suffix(".expected")
    actual = told(case.read_text())
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text(actual)
    assert actual == expected.read_text()


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_no_words_of_the_libraries_underneath(case: Path) -> None:
    assert not JARGON.search(told(case.read_text()))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_no_value_of_a_secret(case: Path) -> None:
    text = told(case.read_text())
    assert not [value for value in ENVIRON.values() if value and value in text]
    assert "S3CR3T" not in text  # what the cases write where a secret is or may be by mistake


def test_every_expectation_has_its_case() -> None:
    expectations = {path.stem for path in (Path(__file__).parent / "config_errors").glob("*.expected")}
    assert expectations == {path.stem for path in CASES}
