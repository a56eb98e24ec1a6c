"""Why something could not be reached, in the system's own words where it has any: libraries wrap them in theirs."""

import os
import ssl


def reason(error: BaseException) -> str:
    """`connection refused`, `self-signed certificate`; a library's own words where the system has none."""
    wrapped = getattr(error, "os_error", None) or getattr(error, "certificate_error", None)  # aiohttp's
    wrapped = wrapped or getattr(error, "reason", None)  # urllib's
    system = wrapped if isinstance(wrapped, BaseException) else error
    if isinstance(system, ssl.SSLError):
        return getattr(system, "verify_message", None) or system.reason or type(system).__name__
    if isinstance(system, OSError) and system.errno is not None:
        # Positive ones are the system's, the others those of looking up a name.
        return (os.strerror(system.errno) if system.errno > 0 else system.strerror or str(system)).lower()
    return str(system) or type(system).__name__
