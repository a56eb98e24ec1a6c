"""Keys become variables of the environment. None is copied: configurations are shown, mailed and committed.

A key that stands in plain text in the file is therefore only told of: at which line it stands, and into which variable
it has to be put. The same key gets the same variable wherever it is written.
"""

import re

from proxy.controlplane.problems import Path
from proxy.importing.source import FROM_ENVIRONMENT, VARIABLE, Source

# What people write where a key is asked for and none is needed.
_NO_KEY = frozenset(
    ("none", "null", "empty", "dummy", "fake", "fake-key", "not-needed", "na", "n/a", "ollama", "no-key")
)


class Keys:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._by_value: dict[str, str] = {}
        self._taken = set(source.environ) | _mentioned(source.data)

    def variable(self, path: Path, value: object, usual: str) -> str | None:
        """The variable that holds, or is to hold, the key that is written at `path`; None where there is no key.

        `usual`: the variable in which LiteLLM looks for such a key.
        """
        if value is None or value == "":
            return None
        text = str(value).strip()
        if text.startswith(FROM_ENVIRONMENT):
            name = text.removeprefix(FROM_ENVIRONMENT)
            if VARIABLE.fullmatch(name):
                return name
            self._source.dropped(path, "after os.environ/ comes no name of a variable: no key came of it")
            return None
        if text.lower() in _NO_KEY:
            self._source.changed(path, "taken for a word that stands for no key: none is sent")
            return None
        if text not in self._by_value:
            self._by_value[text] = self._new(usual, text)
        name = self._by_value[text]
        self._source.to_do(path, f"the key stands there in plain text and is not copied: put it into {name}")
        return name

    def _new(self, usual: str, text: str) -> str:
        name, number = usual, 1
        while name in self._taken and self._source.environ.get(name) != text:
            number += 1
            name = f"{usual}_{number}"
        self._taken.add(name)
        return name


def _mentioned(data: object) -> set[str]:
    """The variables that the file speaks of anywhere."""
    if isinstance(data, dict):
        return {name for value in data.values() for name in _mentioned(value)}
    if isinstance(data, list):
        return {name for value in data for name in _mentioned(value)}
    return set(re.findall(rf"^{FROM_ENVIRONMENT}(\w+)$", data)) if isinstance(data, str) else set()
