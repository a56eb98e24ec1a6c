"""What no part of the configuration can know alone: names that must exist elsewhere, or only once; files; exposure.

It looks at the plain data, not at the settings: where one route is wrong there are no settings, and the mistakes in the
others are to be named all the same. So nothing here relies on a part being there, or being of the right kind.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path as FilePath
from stat import S_ISREG
from typing import Any

from proxy.controlplane.document import Document
from proxy.controlplane.problems import Path, Problem
from proxy.controlplane.secrets import SecretReader, read_private
from proxy.controlplane.shape import closest
from proxy.controlplane.vault import MasterKey
from proxy.model.address import Address
from proxy.model.client_keys import PEPPERED, digest, key_hash
from proxy.model.quantities import shown
from proxy.model.settings import Settings

Finding = tuple[Path, str]
Pattern = tuple[str | int | None, ...]
ANY = None
_EXPOSED = (
    "{} is reachable by others and no clients are listed: list clients, listen on 127.0.0.1, or set allow_anonymous"
)
SECRETS: tuple[Pattern, ...] = (
    ("clients", ANY, "key"),
    ("clients", ANY, "keys", ANY),
    ("admin", "tokens", ANY, "value"),
    ("upstreams", ANY, "keys", ANY, "value"),
    ("master_keys", ANY),
    ("client_pepper",),
    ("canaries", ANY, "webhooks", ANY, "secret"),
    ("tracing", "headers", ANY),
)
OTEL = "opentelemetry.exporter.otlp.proto.http"  # of the extra of that name
FILES: tuple[Pattern, ...] = (
    *((*listener, "tls", file) for listener in (("listen", ANY), ("admin",)) for file in ("cert", "key", "client_ca")),
    ("upstreams", ANY, "tls", "ca"),
)


def find(data: Any, pattern: Pattern, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Everything at a path of this pattern, in which ANY stands for each name of a mapping or entry of a list."""
    if not pattern:
        yield path, data
        return
    names: Collection[Any] = (
        data.keys() if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    )
    wanted, rest = pattern[0], pattern[1:]
    if wanted is not ANY:  # looked up, for with a search for each of them thousands of clients would take minutes
        names = [wanted] if wanted in names else []
    for name in names:
        yield from find(data[name], rest, (*path, name))


def texts(data: Any, *pattern: str | int | None) -> list[tuple[Path, str]]:
    return [(path, value) for path, value in find(data, pattern) if isinstance(value, str)]


def crosscheck(document: Document, secrets: SecretReader) -> list[Problem]:
    """The problems, in no order. `secrets` has resolved what could be."""
    data = document.data
    findings: list[Finding] = []
    for check in (
        _sections,
        _references,
        _circles,
        _canaries,
        _keys_of_members,
        _names,
        _headers,
        _addresses,
        _exposure,
        _extras,
    ):
        findings += check(data)
    findings += _shared_secrets(data, secrets)
    findings += _files(data, secrets.locate)
    findings += _master_keys(data, secrets)
    findings += _peppers(data)
    return [Problem(path, document.line(path), message, document.file) for path, message in findings]


def remarks(document: Document, secrets: SecretReader) -> list[Problem]:
    """The warnings."""
    findings: list[Finding] = []
    for pattern in SECRETS:
        for path, text in texts(document.data, *pattern):
            findings += [(path, remark) for remark in secrets.remarks.get(text, [])]
    findings += _prefixes(document.data, secrets)
    findings += _shadowed(document.data)
    findings += _idle_canaries(document.data)
    return [Problem(path, document.line(path), message, document.file) for path, message in findings]


def _lacks(data: Any, section: str) -> bool:
    """Whether a section is not there: not even misspelt, which is said already."""
    return section not in data and not closest(section, data.keys() - Settings.model_fields.keys())


def _sections(data: Any) -> Iterator[Finding]:
    for name in ("upstreams", "pools", "routes"):
        if _lacks(data, name):
            yield (), f"{name} is missing: without it nothing can be served"
        elif data.get(name) in ({}, []):
            yield (name,), "empty: without it nothing can be served"


def _no_such(kind: str, name: str, names: Iterable[str]) -> str:
    names = list(names)
    likely = closest(name, names)
    if likely:
        return f"no {kind} is named {shown(name)}: did you mean '{likely}'?"
    return f"no {kind} is named {shown(name)}: there are {', '.join(names[:8])}"


def _references(data: Any) -> Iterator[Finding]:
    for kind, section, pattern in (
        ("upstream", "upstreams", ("pools", ANY, "members", ANY, "upstream")),
        ("pool", "pools", ("routes", ANY, "pool")),
        ("pool", "pools", ("pools", ANY, "fallback")),
        ("pool", "pools", ("canaries", ANY, "baseline")),
        ("pool", "pools", ("canaries", ANY, "canary")),
        ("canary", "canaries", ("routes", ANY, "canary")),
    ):
        names = data.get(section)
        if not isinstance(names, dict) or not names:
            continue  # that is the problem then, not everything that refers to it
        yield from ((path, _no_such(kind, name, names)) for path, name in texts(data, *pattern) if name not in names)


def _circles(data: Any) -> Iterator[Finding]:
    """Pools that fall back on each other in a circle: nobody would be left to ask in the end, only later."""
    following = {path[1]: name for path, name in texts(data, "pools", ANY, "fallback")}
    for first in following:
        passed, name = [first], following[first]
        while name in following and name not in passed:
            passed.append(name)
            name = following[name]
        if name == first:
            circle = " → ".join(map(str, [*passed, first]))
            yield ("pools", first, "fallback"), f"a circle ({circle}): remove one of these fallbacks"


def _canaries(data: Any) -> Iterator[Finding]:
    """Routes whose pool is not what their canary is compared with; canaries whose failures would be hidden."""
    baselines = {path[1]: name for path, name in texts(data, "canaries", ANY, "baseline")}
    following = {path[1]: name for path, name in texts(data, "pools", ANY, "fallback")}
    for path, route in find(data, ("routes", ANY)):
        match route:
            case {"pool": str(pool), "canary": str(name)} if baselines.get(name, pool) != pool:
                yield (*path, "canary"), f"its baseline is {baselines[name]}, and this route's pool is {shown(pool)}"
    for path, pool in texts(data, "canaries", ANY, "canary"):
        baseline, passed = baselines.get(path[1]), [pool]
        while (pool := following.get(pool, "")) and pool not in passed:
            passed.append(pool)
            if pool == baseline:
                yield path, f"it falls back on its baseline {shown(pool)}, which would hide its failures: end that"


def _keys_of_members(data: Any) -> Iterator[Finding]:
    for path, member in find(data, ("pools", ANY, "members", ANY)):
        match member:
            case {"upstream": str(upstream), "key": str(key)}:
                names = [name for _, name in texts(data, "upstreams", upstream, "keys", ANY, "name")]
                if names and key not in names:
                    yield (*path, "key"), _no_such(f"key of upstream '{upstream}'", key, names)
                elif isinstance(data.get("upstreams"), dict) and data["upstreams"].get(upstream) and not names:
                    yield (*path, "key"), f"upstream '{upstream}' has no keys: remove this, or list keys there"


def _repeated(named: Iterable[tuple[Path, str]]) -> Iterator[tuple[Path, str]]:
    seen = set()
    for path, name in named:
        if name in seen:
            yield path, name
        seen.add(name)


def _names(data: Any) -> Iterator[Finding]:
    groups: list[tuple[str, Pattern]] = [
        ("client", ("clients", ANY, "name")),
        ("token", ("admin", "tokens", ANY, "name")),
    ]
    groups += [("key of this upstream", (*path, "keys", ANY, "name")) for path, _ in find(data, ("upstreams", ANY))]
    for kind, pattern in groups:
        for path, name in _repeated(texts(data, *pattern)):
            yield path, f"another {kind} is named {shown(name)} too: choose another name"


def _headers(data: Any) -> Iterator[Finding]:
    for pattern in (("upstreams", ANY, "headers"), ("routes", ANY, "headers")):
        for path, headers in find(data, pattern):
            names = [name for name in headers if isinstance(name, str)] if isinstance(headers, dict) else []
            for (*_, name), folded in _repeated(((*path, name), name.lower()) for name in names):
                yield (*path, name), f"{folded} is there already, and letter case makes no difference: leave one"


def _listen_texts(data: Any) -> list[tuple[Path, str]]:
    return texts(data, "listen") + texts(data, "listen", ANY) + texts(data, "listen", ANY, "address")


def _parsed(written: list[tuple[Path, str]]) -> list[tuple[Path, Address]]:
    addresses = []
    for path, text in written:
        try:
            addresses.append((path, Address.parse(text)))
        except ValueError:
            continue  # the schema says so
    return addresses


def _addresses(data: Any) -> Iterator[Finding]:
    admin = texts(data, "admin", "listen") or [((), "127.0.0.1:9090")]
    public = _listen_texts(data) or [((), "127.0.0.1:8080")]
    fixed = [(path, str(address)) for path, address in _parsed(public + admin) if address.port]
    for path, address in _repeated(fixed):
        # A default has no path: then the other one is what an operator can change.
        where = path or next(other for other, text in fixed if text == address)
        yield where, f"another listener is on {address} already: choose another port"


def _exposure(data: Any) -> Iterator[Finding]:
    anyone = _lacks(data, "clients") or data.get("clients") == []
    for path, address in _parsed(_listen_texts(data)):
        if anyone and not (address.is_loopback or data.get("allow_anonymous") is True):
            yield path, _EXPOSED.format(address)
    admin = data.get("admin")
    for path, address in _parsed(texts(data, "admin", "listen")):
        if not address.is_loopback and isinstance(admin, dict) and admin.get("tokens", []) == []:
            yield path, f"{address} is reachable by others and has no tokens: list tokens, or listen on 127.0.0.1"


def _extras(data: Any) -> Iterator[Finding]:
    if data.get("tracing") is not None and not _is_installed(OTEL):
        yield ("tracing",), "this needs what was not installed: pip install 'serinus[otel]'"


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # a package that it is in
        return False


def _shared_secrets(data: Any, secrets: SecretReader) -> Iterator[Finding]:
    """Two clients with one key could not be told apart."""
    owners: dict[str, int] = {}
    known = [secrets.known[text] for _, text in texts(data, "client_pepper") if text in secrets.known]
    pepper = known[0].reveal().encode() if known else None
    for index, _ in enumerate(data["clients"] if isinstance(data.get("clients"), list) else ()):
        client = ("clients", index)
        hashes = texts(data, *client, "key_hash") + texts(data, *client, "key_hash", ANY)
        for path, text in texts(data, *client, "key") + texts(data, *client, "keys", ANY):
            if text in secrets.known:
                made = digest(secrets.known[text].reveal().encode(), pepper)
                hashes.append((path, key_hash(made, pepper is not None)))
        for path, text in hashes:
            if owners.setdefault(text.lower(), index) != index:
                yield path, f"clients[{owners[text.lower()]}] has the same key: give each client its own"


def _files(data: Any, locate: Callable[[FilePath], FilePath]) -> Iterator[Finding]:
    for pattern in FILES:
        for path, text in texts(data, *pattern):
            if "\0" in text:
                yield path, "not a path: write one without control characters"
            elif message := _unusable(locate(FilePath(text)), private=path[-1] == "key"):
                yield path, message


def _unusable(file: FilePath, *, private: bool) -> str | None:
    """Why it cannot be read, or must not be as it is."""
    try:
        if not S_ISREG(file.stat().st_mode):
            return f"{file} is not a file: name one in PEM format"
        if private:
            read_private(file)
        else:
            file.open("rb").close()
    except OSError as error:
        return f"{file} cannot be read: {(error.strerror or 'no reason given').lower()}"
    except ValueError as error:
        return str(error)
    return None


def _master_keys(data: Any, secrets: SecretReader) -> Iterator[Finding]:
    for path, text in texts(data, "master_keys", ANY):
        try:
            if text in secrets.known:
                MasterKey.parse_all(secrets.known[text].reveal())
        except ValueError as error:
            yield path, str(error)


def _peppers(data: Any) -> Iterator[Finding]:
    if data.get("client_pepper") is not None:
        return
    for path, text in texts(data, "clients", ANY, "key_hash") + texts(data, "clients", ANY, "key_hash", ANY):
        if text.startswith(PEPPERED):
            yield path, f"{PEPPERED} needs a client_pepper, the one that it was made with: set it, or issue a new key"


def _prefixes(data: Any, secrets: SecretReader) -> Iterator[Finding]:
    for path, key in find(data, ("upstreams", ANY, "keys", ANY)):
        match key:
            case {"value": str(value), "expect_prefix": str(prefix)}:
                if value in secrets.known and not secrets.known[value].reveal().startswith(prefix):
                    yield (*path, "value"), "the key does not begin as expect_prefix says: is it the right one?"


def _shadowed(data: Any) -> Iterator[Finding]:
    """Routes that an earlier one leaves nothing to."""
    earlier: dict[str, int] = {}
    for (*_, index), route in find(data, ("routes", ANY)):
        match route:
            case {"prefix": str(prefix)} if isinstance(index, int) and prefix.startswith("/"):
                prefix = prefix.rstrip("/") + "/"
                first = next((earlier[taken] for taken in earlier if prefix.startswith(taken)), None)
                if first is not None:
                    yield ("routes", index), f"never reached: routes[{first}] takes all that it could match"
                if not (route.get("model") or route.get("headers")):
                    earlier.setdefault(prefix, index)


def _idle_canaries(data: Any) -> Iterator[Finding]:
    """Canaries that no route has."""
    routed = {name for _, name in texts(data, "routes", ANY, "canary")}
    for path, _ in find(data, ("canaries", ANY)):
        if path[1] not in routed:
            yield path, f"never used: no route has canary: {path[1]}"
