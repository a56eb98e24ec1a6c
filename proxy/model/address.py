"""Where to listen, and where an upstream is: parsed once, strictly, so that nobody meets a surprise in them."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from proxy.model.quantities import shown

# Underscores are no part of a host name by RFC 952, but of those that container tools make.
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9.])?")
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
_PORT = re.compile(r"0|[1-9][0-9]{0,4}")
_PATH = re.compile(r"(/([A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*)*")  # RFC 3986 path-abempty
_DEFAULT_PORTS = {"http": 80, "https": 443}


class _Text(ABC):
    """What is written as text in the configuration and read by `parse`."""

    __slots__ = ()
    json_schema: ClassVar[dict[str, Any]]

    @classmethod
    @abstractmethod
    def parse(cls, value: object) -> Self:
        """Reads the text. Raises ValueError, which says what would be right."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        as_text = core_schema.to_string_ser_schema(when_used="json")
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls.parse(value), serialization=as_text
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(cls.json_schema)


def _is_ipv6(host: str) -> bool:
    try:
        return "%" not in host and bool(IPv6Address(host))
    except ValueError:
        return False


def _is_host(host: str) -> bool:
    if re.fullmatch(r"[0-9.]+", host):  # all digits and dots: an address, or a typing mistake in one
        try:
            return bool(ip_address(host))
        except ValueError:
            return False
    labels = host.removesuffix(".").split(".")
    return bool(_HOST.fullmatch(host)) and all(0 < len(label) <= 63 for label in labels)  # RFC 1035 section 2.3.4


def is_address(host: str) -> bool:
    """Is it an IP address, and no name?"""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@dataclass(frozen=True, slots=True)
class Address(_Text):
    """A host and a port to listen on; port 0 lets the system choose."""

    json_schema: ClassVar[dict[str, Any]] = {
        "type": "string",
        "pattern": r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*):[0-9]{1,5}$",
        "examples": ["127.0.0.1:8080", "0.0.0.0:8080", "[::1]:8080"],
    }

    host: str
    port: int

    @classmethod
    def parse(cls, value: object) -> Self:
        host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", str(value))
        if not colon and _PORT.fullmatch(port):
            raise ValueError(f"{shown(value)} is not an address: write 127.0.0.1:{port}")
        if not _PORT.fullmatch(port) or int(port) > 65535:
            raise ValueError(f"{shown(value)} is not an address: write a host and a port, such as 127.0.0.1:8080")
        if host in ("", "*"):
            raise ValueError(f"{shown(value)} names no host: write 0.0.0.0:{port} for every address of this machine")
        if _is_ipv6(host):
            raise ValueError(f"{shown(value)} is not an address: write [{host}]:{port}")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else ""
        if not (_is_ipv6(bare) or _is_host(host)):
            raise ValueError(f"{shown(value)} is not an address: write a host and a port, such as 127.0.0.1:{port}")
        return cls(bare or host, int(port))

    @property
    def is_loopback(self) -> bool:
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class BaseUrl(_Text):
    """What an SDK would be given as its base URL. `path` is empty or begins with a slash, and never ends with one."""

    json_schema: ClassVar[dict[str, Any]] = {
        "type": "string",
        "pattern": r"^https?://[^@?#\s]+$",
        "examples": ["https://api.openai.com/v1", "http://127.0.0.1:8000/v1"],
    }

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, value: object) -> Self:
        """Reads a URL. Its text is in no error: a password or key may be in it, which is what the error is about."""
        if not isinstance(value, str) or not value.isascii() or re.search(r"[\x00-\x20\x7f\\]", value):
            raise ValueError("not a URL: write https://host/path, in ASCII and without blanks")
        scheme, separator, rest = value.partition("://")
        if not separator or scheme.lower() not in _DEFAULT_PORTS:
            raise ValueError("not a URL that can be proxied: begin it with https:// or http://")
        authority, slash, path = rest.partition("/")
        if "@" in authority:
            raise ValueError("a user name or password in the URL: take it out, and put the credential under keys")
        if "?" in rest or "#" in rest:
            raise ValueError("a '?' or '#' in the URL: end it before, and put parameters under query")
        host, port = cls._host_and_port(authority, _DEFAULT_PORTS[scheme.lower()])
        return cls(scheme.lower(), host, port, cls._path(slash + path))

    @staticmethod
    def _host_and_port(authority: str, default_port: int) -> tuple[str, int]:
        found = _AUTHORITY.fullmatch(authority)
        host = found[1].strip("[]").lower() if found else ""
        port = int(found[2] or default_port) if found else 0
        if not 0 < port < 65536 or not (_is_ipv6(host) if authority.startswith("[") else _is_host(host)):
            raise ValueError("no usable host and port in the URL: write https://host/path or http://host:8000")
        return host, port

    @staticmethod
    def _path(path: str) -> str:
        if not _PATH.fullmatch(path):
            raise ValueError("characters in the URL's path that have to be percent-encoded: write them as in %20")
        if any(re.sub("%2e", ".", segment, flags=re.IGNORECASE) in (".", "..") for segment in path.split("/")):
            raise ValueError("a '.' or '..' in the URL's path: write the path that it leads to")
        return path.rstrip("/")

    @property
    def authority(self) -> str:
        """The value of the Host header: the default port is left out."""
        host = _bracketed(self.host)
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"
