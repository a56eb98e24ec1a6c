"""The cases of Autobahn's test suite against one server, each on a connection of its own.

`python -m tests.websocket.cases ws://host:port/path 1.* 2.*` prints the verdict of each as JSON. It is a process of its
own: to import the cases puts modules of common names (`case`, `pkg_resources`) into the path, and patches `binascii`.
"""

import asyncio
import json
import os
import sys
from collections.abc import Sequence

from kosoku import FailureError, run_fuzzingclient
from kosoku.cases import CASES

MESSAGES = 5  # of each size; those about speed and compression would send 1,000
AT_ONCE = 4
PATIENCE_S = 20.0


class Patient:
    """A connection of a case: the suite waits a second for the server's end, which is little on a busy machine."""

    def __init__(self, connection: object) -> None:
        self.__dict__["connection"] = connection

    def __getattr__(self, name: str) -> object:
        return getattr(self.connection, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.connection, name, value)

    def killAfter(self, seconds: float) -> None:
        self.connection.killAfter(max(seconds, PATIENCE_S))


async def run(url: str, patterns: Sequence[str]) -> dict[str, dict[str, object]]:
    base = next(iter(CASES.values())).__mro__[-2]
    base.p = property(lambda case: vars(case)["p"], lambda case, p: vars(case).update(p=Patient(p)))
    for case in CASES.values():
        if hasattr(case, "COUNT"):
            case.COUNT = MESSAGES
    try:
        results = await run_fuzzingclient(url, patterns, concurrency=AT_ONCE)
    except FailureError as failure:
        results = failure.results  # of all cases, not of the failed ones alone
    return {result.case_id: verdict(result) for result in results}


def verdict(result) -> dict[str, object]:
    return {
        "passed": result.passed,
        "behavior": result.behavior.value,
        "close": result.behavior_close.value,
        "code": result.remote_close_code,
        "reason": result.remote_close_reason,
        "clean": result.was_clean,
    }


if __name__ == "__main__":
    json.dump(asyncio.run(run(sys.argv[1], sys.argv[2:])), sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # the library's own threads may outlive the interpreter, and then abort the process
