"""The table of requests: what is let through, what is refused, and that nothing of the refused reaches an upstream.

Every row goes over real sockets twice: in one write, and in many small ones. Whatever a caller sends is called `zebra`
somewhere, so that an echo of it would be found.
"""

import json
import ssl
from contextlib import suppress
from dataclasses import dataclass

import pytest
import trustme

from proxy.policy.fields import TRACEPARENT_VALUE
from tests.support.raw import CLIENT, RawCaller, ask, get, post
from tests.support.running import RunningProxy, config_for
from tests.support.scripted import Received, answering, whole

HOST = b"Host: proxy\r\n"
TARGET = b"/v1/zebra"
MAX_HEAD_BYTES, MAX_TARGET_BYTES, MAX_FIELDS = 32 * 1024, 16 * 1024, 128


def head(
    fields: bytes = b"", *, method: bytes = b"POST", target: bytes = TARGET, version: bytes = b"HTTP/1.1", host=HOST
) -> bytes:
    return b"%b %b %b\r\n%b%b%b\r\n" % (method, target, version, host, CLIENT, fields)


def lengths(*values: bytes) -> bytes:
    """A request with these Content-Length values, and a request hidden in its body."""
    return head(b"".join(b"Content-Length: %b\r\n" % value for value in values)) + HIDDEN


def coded(*values: bytes, after: bytes = b"0\r\n\r\n", version: bytes = b"HTTP/1.1") -> bytes:
    fields = b"".join(b"Transfer-Encoding:%b\r\n" % value for value in values)
    return head(fields, version=version) + after


def chunks(body: bytes) -> bytes:
    return coded(b" chunked", after=body)


HIDDEN = b"GET /v1/zebra-hidden HTTP/1.1\r\n" + HOST + CLIENT + b"\r\n"

REFUSED: dict[str, tuple[int, bytes]] = {
    # --- Content-Length ---
    "lengths that differ": (400, lengths(b"0", b"%d" % len(HIDDEN))),
    "lengths that agree": (400, lengths(b"5", b"5")),
    "length as a list": (400, lengths(b"0, %d" % len(HIDDEN))),
    "length as a list of one value": (400, lengths(b"5,5")),
    "length with a plus": (400, lengths(b"+5")),
    "length with a minus": (400, lengths(b"-5")),
    "length in hex": (400, lengths(b"0x5")),
    "length with an underscore": (400, lengths(b"1_0")),
    "length with a blank inside": (400, lengths(b"1 0")),
    "length with a tab inside": (400, lengths(b"1\t0")),
    "length with a fraction": (400, lengths(b"5.0")),
    "length with an exponent": (400, lengths(b"1e1")),
    "empty length": (400, lengths(b"")),
    "length in Arabic digits": (400, lengths(b"\xd9\xa5")),
    "length in full-width digits": (400, lengths(b"\xef\xbc\x95")),
    "length with a NUL": (400, lengths(b"5\x00")),
    "length with a form feed": (400, lengths(b"\x0c5")),
    "length of 2^63": (400, lengths(b"%d" % 2**63)),
    "length of 2^64 - 1": (400, lengths(b"%d" % (2**64 - 1))),
    "length of 2^64 + 5": (400, lengths(b"%d" % (2**64 + 5))),
    "length of a hundred digits": (400, lengths(b"9" * 100)),
    "blank before the colon of the length": (400, head(b"Content-Length : 5\r\n") + b"zebra"),
    "length, then coding": (400, head(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n" + HIDDEN),
    "coding, then length": (400, head(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n") + b"0\r\n\r\n" + HIDDEN),
    "length of 0 with coding": (400, head(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n"),
    # --- Transfer-Encoding ---
    "coding on HTTP/1.0": (400, coded(b" chunked", version=b"HTTP/1.0")),
    "coding twice": (400, coded(b" chunked", b" chunked")),
    "coding twice in one field": (400, coded(b" chunked, chunked")),
    "gzip, then chunked": (400, coded(b" gzip, chunked")),
    "gzip and chunked in two fields": (400, coded(b" gzip", b" chunked")),
    "chunked, then gzip": (400, coded(b" chunked, gzip")),
    "chunked and gzip in two fields": (400, coded(b" chunked", b" gzip")),
    "empty coding": (400, coded(b"")),
    "coding of blanks": (400, coded(b"   ")),
    "quoted coding": (501, coded(b' "chunked"')),
    "folded coding": (400, coded(b"\r\n chunked")),
    "coding with a parameter": (501, coded(b" chunked;zebra=1")),
    "coding behind a comma": (400, coded(b" ,chunked")),
    "coding before a comma": (400, coded(b" chunked,")),
    "coding behind a vertical tab": (400, coded(b" \x0bchunked")),
    "coding before a NUL": (400, coded(b" chunked\x00")),
    "blank before the coding's colon": (400, head(b"Transfer-Encoding : chunked\r\n") + b"0\r\n\r\n"),
    "unknown coding": (501, coded(b" zebra")),
    "gzip alone": (501, coded(b" gzip")),
    "identity": (501, coded(b" identity")),
    "xchunked": (501, coded(b" xchunked")),
    # --- chunks ---
    "chunk size in 0x": (400, chunks(b"0x5\r\nzebra\r\n0\r\n\r\n")),
    "chunk size with a plus": (400, chunks(b"+5\r\nzebra\r\n0\r\n\r\n")),
    "chunk size with a minus": (400, chunks(b"-5\r\nzebra\r\n0\r\n\r\n")),
    "chunk size behind a blank": (400, chunks(b" 5\r\nzebra\r\n0\r\n\r\n")),
    "chunk size before a blank": (400, chunks(b"5 \r\nzebra\r\n0\r\n\r\n")),
    "chunk size with a blank inside": (400, chunks(b"0 5\r\nzebra\r\n0\r\n\r\n")),
    "chunk size with an underscore": (400, chunks(b"0_5\r\nzebra\r\n0\r\n\r\n")),
    "chunk size beyond 64 bits": (400, chunks(b"10000000000000005\r\nzebra\r\n0\r\n\r\n")),
    "no chunk size": (400, chunks(b"\r\nzebra\r\n0\r\n\r\n")),
    "chunk size that is none": (400, chunks(b"zebra\r\n0\r\n\r\n")),
    "chunk size before a bare LF": (400, chunks(b"5\nzebra\r\n0\r\n\r\n")),
    "chunk size before a bare CR": (400, chunks(b"5\rzebra\r\n0\r\n\r\n")),
    "chunk data without CRLF": (400, chunks(b"5\r\nzebra0\r\n\r\n")),
    "chunk data before a bare LF": (400, chunks(b"5\r\nzebra\n0\r\n\r\n")),
    "chunk data longer than its size": (400, chunks(b"4\r\nzebra\r\n0\r\n\r\n")),
    "CR in a chunk extension": (400, chunks(b"5;zebra\ra\r\nzebra\r\n0\r\n\r\n")),
    "LF in a chunk extension": (400, chunks(b"5;zebra\na\r\nzebra\r\n0\r\n\r\n")),
    "NUL in a chunk extension": (400, chunks(b"5;zebra\x00\r\nzebra\r\n0\r\n\r\n")),
    "endless chunk extension": (400, chunks(b"5;" + b"zebra" * 400_000 + b"\r\nzebra\r\n0\r\n\r\n")),
    "request instead of the last chunk": (400, chunks(b"5\r\nzebra\r\n" + HIDDEN)),
    "trailer without a colon": (400, chunks(b"0\r\nzebra\r\n\r\n")),
    "Host among the trailers": (400, chunks(b"0\r\nHost: zebra\r\nX-Zebra: 1\r\n\r\n")),
    "length among the trailers": (400, chunks(b"0\r\nContent-Length: 9\r\n\r\n")),
    "coding among the trailers": (400, chunks(b"0\r\nTransfer-Encoding: gzip\r\n\r\n")),
    "thousands of trailers": (431, chunks(b"5\r\nzebra\r\n0\r\n" + b"X-Zebra: 1\r\n" * 5000 + b"\r\n")),
    # --- lines and fields ---
    "bare LF after the request line": (400, b"GET /v1/zebra HTTP/1.1\n" + HOST + CLIENT + b"\r\n"),
    "bare LF after a field": (400, head(b"X-Zebra: 1\nX-Other: 2\r\n")),
    "bare LF at the head's end": (400, head()[:-2] + b"\n"),
    "bare CR in a value": (400, head(b"X-Zebra: 1\rX-Other: 2\r\n")),
    "bare CR in a name": (400, head(b"X-Ze\rbra: 1\r\n")),
    "NUL in a value": (400, head(b"X-Zebra: a\x00b\r\n")),
    "NUL in a name": (400, head(b"X-Ze\x00bra: 1\r\n")),
    "bell in a value": (400, head(b"X-Zebra: a\x07b\r\n")),
    "DEL in a value": (400, head(b"X-Zebra: a\x7fb\r\n")),
    "folded field": (400, head(b"X-Zebra: 1\r\n 2\r\n")),
    "folded first field": (400, b"GET /v1/zebra HTTP/1.1\r\n " + HOST + CLIENT + b"\r\n"),
    "blank in a name": (400, head(b"X Zebra: 1\r\n")),
    "blank before the colon": (400, head(b"X-Zebra : 1\r\n")),
    "tab before the colon": (400, head(b"X-Zebra\t: 1\r\n")),
    "empty name": (400, head(b": zebra\r\n")),
    "8-bit name": (400, head(b"X-Z\xe9bra: 1\r\n")),
    "name with a bracket": (400, head(b"X-Zebra(1): 1\r\n")),
    "name with a slash": (400, head(b"X/Zebra: 1\r\n")),
    "field without a colon": (400, head(b"X-Zebra\r\n")),
    "blank line of blanks": (400, head(b" \r\n")),
    # --- sizes ---
    "head over 32 KiB in one field": (431, head(b"X-Zebra: %b\r\n" % (b"z" * MAX_HEAD_BYTES))),
    "head over 32 KiB in a hundred fields": (431, head(b"X-Zebra: %b\r\n" % (b"z" * 400) * 100)),
    "head far over 32 KiB": (431, head(b"X-Zebra: %b\r\n" % (b"z" * 3000) * 100)),
    "name over 32 KiB": (431, head(b"Z" * MAX_HEAD_BYTES + b"ebra: 1\r\n")),
    "one field too many": (431, head(b"X-Zebra: 1\r\n" * (MAX_FIELDS - 1))),
    "target over 16 KiB": (414, head(target=b"/v1/" + b"z" * MAX_TARGET_BYTES)),
    "query over 16 KiB": (414, head(target=b"/v1/?" + b"z" * MAX_TARGET_BYTES)),
    # --- versions and methods ---
    "HTTP/0.9": (505, b"GET /v1/zebra\r\n\r\n"),
    "HTTP/0.9 spelt out": (505, head(version=b"HTTP/0.9")),
    "HTTP/1.2": (505, head(version=b"HTTP/1.2")),
    "HTTP/2.0": (505, head(version=b"HTTP/2.0")),
    "HTTP/9.9": (505, head(version=b"HTTP/9.9")),
    "the preface of HTTP/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/11": (400, head(version=b"HTTP/11")),
    "HTTP/1.10": (400, head(version=b"HTTP/1.10")),
    "HTTP/1.": (400, head(version=b"HTTP/1.")),
    "HTTP 1.1": (400, head(version=b"HTTP 1.1")),
    "http/1.1": (400, head(version=b"http/1.1")),
    "version of another protocol": (400, head(version=b"ZEBRA/1.1")),
    "blanks behind the version": (400, head(version=b"HTTP/1.1 ")),
    "method in small letters": (400, head(method=b"post")),
    "method nobody knows": (400, head(method=b"ZEBRA")),
    "no method": (400, b" /v1/zebra HTTP/1.1\r\n" + HOST + b"\r\n"),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03zebra\r\n\r\n"),
    "CONNECT": (405, head(method=b"CONNECT", target=b"zebra:443")),
    "CONNECT of a path": (405, head(method=b"CONNECT")),
    # --- targets ---
    "target without a slash": (400, head(target=b"v1/zebra")),
    "target with a tab": (400, head(target=b"/v1/\tzebra")),
    "target with a blank": (400, head(target=b"/v1/ zebra")),
    "target with a NUL": (400, head(target=b"/v1/\x00zebra")),
    "target with an 8-bit byte": (400, head(target=b"/v1/z\xe9bra")),
    "target with a fragment": (400, head(target=b"/v1/a#zebra")),
    "target with a DEL": (400, head(target=b"/v1/\x7fzebra")),
    "* for GET": (400, head(method=b"GET", target=b"*")),
    "* for OPTIONS": (400, head(method=b"OPTIONS", target=b"*")),
    "empty target": (400, b"GET  HTTP/1.1\r\n" + HOST + b"\r\n"),
    "authority as the target": (400, head(target=b"zebra:80")),
    "absolute target of another scheme": (400, head(target=b"ftp://proxy/v1/zebra")),
    "absolute target without an authority": (400, head(target=b"http:///v1/zebra")),
    "absolute target with userinfo": (400, head(target=b"http://zebra@proxy/v1/x")),
    "absolute target with a bad port": (400, head(target=b"http://proxy:99999/v1/zebra")),
    # --- Host ---
    "no Host": (400, head(host=b"")),
    "two Hosts": (400, head(host=HOST + b"Host: zebra\r\n")),
    "two Hosts that agree": (400, head(host=HOST + HOST)),
    "two Hosts on HTTP/1.0": (400, head(host=HOST + b"Host: zebra\r\n", version=b"HTTP/1.0")),
    "Host as a list": (400, head(host=b"Host: proxy, zebra\r\n")),
    "Host with userinfo": (400, head(host=b"Host: zebra@proxy\r\n")),
    "Host with a path": (400, head(host=b"Host: proxy/zebra\r\n")),
    "Host with a query": (400, head(host=b"Host: proxy?zebra\r\n")),
    "Host with a blank": (400, head(host=b"Host: proxy zebra\r\n")),
    "Host with a port of letters": (400, head(host=b"Host: proxy:zebra\r\n")),
    "Host with a port too high": (400, head(host=b"Host: zebra:65536\r\n")),
    "Host with two ports": (400, head(host=b"Host: zebra:1:2\r\n")),
    "Host with an open bracket": (400, head(host=b"Host: [::1\r\n")),
    "Host with 8-bit bytes": (400, head(host=b"Host: z\xe9bra\r\n")),
    "empty Host": (400, head(host=b"Host:\r\n")),
    # --- expectations and loops ---
    "unknown expectation": (417, head(b"Expect: zebra\r\n")),
    "expectation beside another": (417, head(b"Expect: 100-continue, zebra\r\n")),
}

# Valid HTTP, but not served: answered as errors, and the connection may go on.
NOT_SERVED: dict[str, tuple[int, bytes]] = {
    "path out of all prefixes": (404, get(b"/zebra")),
    "prefix in the middle of a segment": (404, get(b"/v1zebra")),
    "prefix with an encoded slash": (404, get(b"/v1%2fzebra")),
    "prefix in other letters": (404, get(b"/V1/zebra")),
    "prefix behind two slashes": (404, get(b"//v1/zebra")),
    "prefix behind a dot segment": (404, get(b"/./v1/zebra")),
    "escape": (400, get(b"/v1/../zebra")),
    "escape at the end": (400, get(b"/v1/..")),
    "escape after a segment": (400, get(b"/v1/a/../../zebra")),
    "escape over empty segments": (400, get(b"/v1//../zebra")),
    "escape over dot segments": (400, get(b"/v1/./../zebra")),
    "encoded escape": (400, get(b"/v1/%2e%2e/zebra")),
    "half encoded escape": (400, get(b"/v1/.%2E/zebra")),
    "escape with an encoded slash": (400, get(b"/v1/..%2fzebra")),
    "escape behind an encoded slash": (400, get(b"/v1/a%2f..%2F..%2fzebra")),
    "escape with a backslash": (400, get(b"/v1/..\\zebra")),
    "escape with an encoded backslash": (400, get(b"/v1/..%5Czebra")),
    "escape with a path parameter": (400, get(b"/v1/..;a=1/zebra")),
    "escape in an absolute target": (400, get(b"http://proxy/v1/../zebra")),
    "wrong key": (401, get().replace(b"client-key", b"zebra")),
    "no key": (401, get().replace(CLIENT, b"")),
}


@dataclass
class Passed:
    """A request that goes upstream: its line, the fields left of the caller's, its body."""

    raw: bytes
    fields: tuple[bytes, ...] = ()
    line: bytes = b"GET /v1/models HTTP/1.1"
    body: bytes = b""
    traceparent: bytes | None = None  # the caller's; None where a new one is made


def field_passed(*fields: bytes, sent: bytes = b"") -> Passed:
    """A GET with some fields. `sent`: how they are written, if not as they are passed on."""
    return Passed(get(fields=sent or b"".join(field + b"\r\n" for field in fields)), fields)


def target_passed(target: bytes, becomes: bytes | None = None) -> Passed:
    return Passed(get(target), line=b"GET %b HTTP/1.1" % (becomes or target))


def body_passed(raw: bytes, body: bytes) -> Passed:
    return Passed(raw, (b"content-length: %d" % len(body),), b"POST /v1/zebra HTTP/1.1", body)


def dropped(*fields: bytes) -> Passed:
    return field_passed(b"Accept: a", sent=b"".join(field + b"\r\n" for field in fields) + b"Accept: a\r\n")


def traced(traceparent: bytes, *more: bytes) -> Passed:
    """A trace that goes on."""
    sent = b"".join(field + b"\r\n" for field in (b"TraceParent: " + traceparent, *more))
    return Passed(get(fields=sent), more, traceparent=traceparent)


def untraced(*traceparents: bytes) -> Passed:
    """No trace that could go on: what the caller says of its state is not sent on either."""
    return dropped(b"Tracestate: zebra=1", *(b"traceparent: " + value for value in traceparents), b"Tracestate: a=2")


TRACE, SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"

PASSED: dict[str, Passed] = {
    "plain": Passed(get()),
    "empty lines before": Passed(b"\r\n\r\n" + get()),
    "HTTP/1.0": Passed(get().replace(b"HTTP/1.1", b"HTTP/1.0")),
    "HTTP/1.0 without Host": Passed(b"GET /v1/models HTTP/1.0\r\n" + CLIENT + b"\r\n"),
    "HEAD": Passed(get().replace(b"GET", b"HEAD"), line=b"HEAD /v1/models HTTP/1.1"),
    "DELETE": Passed(get().replace(b"GET", b"DELETE"), line=b"DELETE /v1/models HTTP/1.1"),
    "OPTIONS": Passed(get().replace(b"GET", b"OPTIONS"), line=b"OPTIONS /v1/models HTTP/1.1"),
    "blanks before the target": Passed(get(b"   /v1/models")),
    # --- targets ---
    "query": target_passed(b"/v1/models?a=1&b=%20&c=/../x"),
    "question marks": target_passed(b"/v1?a?b"),
    "the prefix alone": target_passed(b"/v1", b"/v1"),
    "the prefix and a slash": target_passed(b"/v1/"),
    "empty segments": target_passed(b"/v1//a///b"),
    "dot segments inside the prefix": target_passed(b"/v1/a/../b/./c"),
    "encoded bytes": target_passed(b"/v1/%41%2f%00%25"),
    "odd but visible bytes": target_passed(b"/v1/a\"<>\\^`{|}'!$&()*+,;=:@[]~b"),
    "dots that are no segment": target_passed(b"/v1/models/gpt-4.1..x/...?a=.."),
    "target of 16 KiB": target_passed(b"/v1/" + b"z" * (MAX_TARGET_BYTES - 4)),
    "absolute target": target_passed(b"http://proxy/v1/models?a=1", b"/v1/models?a=1"),
    "absolute target of another host": target_passed(b"http://zebra:99/v1/models", b"/v1/models"),
    "absolute target of an inner host": target_passed(b"HTTPS://169.254.169.254/v1/models", b"/v1/models"),
    # --- Host ---
    "Host with a port": Passed(get().replace(b"Host: proxy", b"Host: proxy:8080")),
    "Host that is an address": Passed(get().replace(b"Host: proxy", b"Host: [::1]:65535")),
    "Host in other letters": Passed(get().replace(b"Host: proxy", b"HOST:proxy")),
    # --- fields as they came ---
    "unknown fields in their order and case": field_passed(b"X-Zebra: 1", b"x-zEBRA: 2", b"Accept: */*", b"X-Zebra: 3"),
    "8-bit value": field_passed(b"X-Zebra: \xe9t\xe9 \xff\x80"),
    "UTF-8 value": field_passed("X-Zebra: zèbre 🦓".encode()),
    "empty value": field_passed(b"X-Zebra: "),
    "blanks around a value": field_passed(b"X-Zebra: a \t b", sent=b"X-Zebra: \t a \t b \t \r\n"),
    "no blank after the colon": field_passed(b"X-Zebra: a:b", sent=b"X-Zebra:a:b\r\n"),
    "every byte a name may have": field_passed(b"!#$%&'*+-.^_`|~09azAZ: 1"),
    "cookies": field_passed(b"Cookie: a=1", b"Cookie: b=2"),
    "as many fields as allowed": field_passed(*(b"X-%d: 1" % number for number in range(MAX_FIELDS - 2))),
    "nearly 32 KiB of fields": field_passed(*(b"X-%d: %b" % (number, b"z" * 300) for number in range(100))),
    "another proxy's Via": field_passed(b"Via: 1.1 zebra"),
    "content-encoding": field_passed(b"Content-Encoding: zebra"),
    # --- fields that end here ---
    "hop-by-hop": dropped(
        b"Keep-Alive: 5", b"Proxy-Connection: close", b"TE: trailers", b"Trailer: X", b"Upgrade: h2c"
    ),
    "proxy credentials": dropped(b"Proxy-Authorization: Basic zebra"),
    "what proxies say of callers": dropped(b"X-Forwarded-For: 1.1.1.1", b"X-Forwarded-Proto: zebra", b"X-Real-IP: 1"),
    "Forwarded": dropped(b"Forwarded: for=zebra", b"x-forwarded-zebra: 1"),
    "our own family": dropped(b"X-Serinus-Zebra: 1", b"x-serinus-upstream: zebra"),
    "a request id that is none": dropped(b"X-Request-Id: zebra zebra"),
    "nominated": dropped(b"X-Zebra: 1", b"Connection: X-zebra"),
    "nominated twice": dropped(
        b"Connection: a , x-ZEBRA", b"X-Zebra: 1", b"Connection: keep-alive,,x-more", b"X-More: 2"
    ),
    "nominated and absent": dropped(b"Connection: zebra"),
    "nominated, never removed": field_passed(
        b"Content-Type: zebra",
        b"Cookie: a=1",
        sent=b"Connection: host, authorization, content-type, cookie, via\r\nContent-Type: zebra\r\nCookie: a=1\r\n",
    ),
    "nominated length": body_passed(post(b"zebra", target=TARGET, fields=b"Connection: content-length\r\n"), b"zebra"),
    "an upgrade nobody takes": dropped(b"Connection: Upgrade", b"Upgrade: h2c"),
    # --- trace context ---
    "trace": traced(b"00-%b-%b-01" % (TRACE, SPAN)),
    "trace with its state": traced(b"00-%b-%b-00" % (TRACE, SPAN), b"TRACESTATE: a=1,b=2", b"X: 1", b"tracestate: c=3"),
    "trace of a later version": traced(b"cc-%b-%b-01-what-the.future/will=be" % (TRACE, SPAN)),
    "state without a trace": untraced(),
    "two traces": untraced(b"00-%b-%b-01" % (TRACE, SPAN), b"00-%b-%b-01" % (TRACE, b"1" * 16)),
    "the same trace twice": untraced(b"00-%b-%b-01" % (TRACE, SPAN), b"00-%b-%b-01" % (TRACE, SPAN)),
    "a trace behind one that is none": untraced(b"zebra", b"00-%b-%b-01" % (TRACE, SPAN)),
    "empty trace": untraced(b""),
    "trace in capitals": untraced(b"00-%b-%b-01" % (TRACE.upper(), SPAN)),
    "trace of zeros": untraced(b"00-%b-%b-01" % (b"0" * 32, SPAN)),
    "span of zeros": untraced(b"00-%b-%b-01" % (TRACE, b"0" * 16)),
    "trace of no version": untraced(b"ff-%b-%b-01" % (TRACE, SPAN)),
    "trace too short": untraced(b"00-%b-%b-01" % (TRACE[:-1], SPAN)),
    "trace without flags": untraced(b"00-%b-%b" % (TRACE, SPAN)),
    "trace with a blank": untraced(b"00-%b-%b-01 zebra" % (TRACE, SPAN)),
    # --- bodies ---
    "length of 0": body_passed(post(b"", target=TARGET), b""),
    "length with zeros before": body_passed(head(b"Content-Length: 0005\r\n") + b"zebra", b"zebra"),
    "body that looks like a request": body_passed(post(HIDDEN, target=TARGET), HIDDEN),
    "body of all bytes": body_passed(post(bytes(range(256)), target=TARGET), bytes(range(256))),
    "body with GET": Passed(
        post(b"zebra").replace(b"POST", b"GET"),
        (b"content-length: 5",),
        b"GET /v1/chat/completions HTTP/1.1",
        b"zebra",
    ),
    "chunks": body_passed(chunks(b"3\r\nzeb\r\n2\r\nra\r\n0\r\n\r\n"), b"zebra"),
    "no chunk but the last": body_passed(chunks(b"0\r\n\r\n"), b""),
    "chunks in capitals": body_passed(coded(b"CHUNKED", after=b"A\r\nzebrazebra\r\n0\r\n\r\n"), b"zebrazebra"),
    "chunk sizes with zeros before": body_passed(chunks(b"0005\r\nzebra\r\n000\r\n\r\n"), b"zebra"),
    "chunk extensions": body_passed(chunks(b'5;a=b;c="d"\r\nzebra\r\n0;x\r\n\r\n'), b"zebra"),
    "trailers": body_passed(
        chunks(b"5\r\nzebra\r\n0\r\nAuthorization: zebra\r\nCookie: zebra\r\nX-Zebra: 1\r\n\r\n"), b"zebra"
    ),
    "Expect on HTTP/1.0": body_passed(
        head(b"Expect: 100-continue\r\nContent-Length: 5\r\n", version=b"HTTP/1.0") + b"zebra", b"zebra"
    ),
}


def dribbled(raw: bytes) -> list[bytes]:
    size = max(1, len(raw) // 200)
    return [raw[at : at + size] for at in range(0, len(raw), size)]


async def exchanged(port: int, *pieces: bytes) -> tuple[RawCaller, int, bytes]:
    """Send, and read the head of the first answer. A caller that is refused in mid-sentence stops."""
    caller = await RawCaller.connect(port)
    with suppress(ConnectionError):
        await caller.send(*pieces)
    answer = await caller.answer()
    return caller, answer.status, answer.head + answer.body


def assert_untouched(running: RunningProxy) -> None:
    """No upstream has so much as been picked."""
    for live in running.serinus.registry.upstreams.values():
        assert live.inflight == 0
        assert not any(live.outcomes.values()), live.outcomes


def assert_own_error(answer: bytes) -> None:
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert b"zebra" not in answer.lower()
    assert b"client-key" not in answer


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(name, scripted, proxy):
    status, raw = REFUSED[name]
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    for pieces in ([raw], dribbled(raw)):
        caller, answered, answer = await exchanged(running.port, *pieces)
        assert answered == status
        assert_own_error(answer)
        assert b"\r\nconnection: close\r\n" in answer
        assert await caller.read_rest() == b""
    assert_untouched(running)
    assert upstream.connections == 0


@pytest.mark.parametrize("name", NOT_SERVED)
async def test_not_served(name, scripted, proxy):
    status, raw = NOT_SERVED[name]
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller, answered, answer = await exchanged(running.port, raw)
    assert answered == status
    assert_own_error(answer)
    assert_untouched(running)
    await caller.send(get())
    assert (await caller.answer()).status == 200


def callers_fields(request: Received, port: int) -> tuple[bytes, ...]:
    """The fields that came from the caller: those that are ours are checked and taken away."""
    assert request.field(b"host") == b"127.0.0.1:%d" % port
    assert request.field(b"authorization") == b"Bearer upstream-key-0"
    assert request.field(b"x-request-id")
    assert [value for name, value in request.fields if name == b"via"][-1].startswith(b"1.1 serinus-")
    assert TRACEPARENT_VALUE.fullmatch(request.field(b"traceparent"))
    ours = (b"Host", b"authorization", b"x-request-id", b"traceparent", b"via")
    return tuple(b"%b: %b" % pair for pair in request.fields if pair[0] not in ours)


@pytest.mark.parametrize("name", PASSED)
async def test_passed(name, scripted, proxy):
    row = PASSED[name]
    upstream = await scripted(answering(whole(b"")))
    running = await proxy(config_for(upstream.url))
    for pieces in ([row.raw], dribbled(row.raw)):
        _, status, _ = await exchanged(running.port, *pieces)
        assert status == 200
    assert len(upstream.requests) == 2
    for request in upstream.requests:
        assert request.line == row.line
        assert request.body == row.body
        assert callers_fields(request, upstream.port) == row.fields
        made = request.field(b"traceparent") not in row.raw
        assert made if row.traceparent is None else request.field(b"traceparent") == row.traceparent
    assert row.traceparent or len({request.field(b"traceparent") for request in upstream.requests}) == 2


# --- more than one message, more than one answer -------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order_with_one_upstream_message_each(scripted, proxy):
    async def echo(talk):
        while True:
            request = await talk.request()
            await talk.send(whole(request.line.split(b" ")[1] + request.body))

    upstream = await scripted(echo)
    running = await proxy(config_for(upstream.url))
    for pieces in (lambda raw: [raw], dribbled):
        caller = await RawCaller.connect(running.port)
        requests = [get(b"/v1/%d" % number) + post(b"%d" % number, target=b"/v1/p") for number in range(50)]
        await caller.send(*pieces(b"".join(requests) + get(b"/v1/last") + chunks(b"1\r\nc\r\n0\r\n\r\n")))
        for number in range(50):
            assert (await caller.answer()).payload == b"/v1/%d" % number
            assert (await caller.answer()).payload == b"/v1/p%d" % number
        assert (await caller.answer()).payload == b"/v1/last"
        assert (await caller.answer()).payload == b"/v1/zebrac"
    assert len(upstream.requests) == 2 * 102


@pytest.mark.parametrize("name", ["lengths that differ", "NUL in a value", "no Host", "HTTP/2.0", "CONNECT"])
async def test_bad_request_behind_a_good_one_is_refused_after_its_answer(name, scripted, proxy):
    status, raw = REFUSED[name]
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(*dribbled(get() + raw))
    assert (await caller.answer()).status == 200
    assert (await caller.answer()).status == status
    assert await caller.read_rest() == b""
    assert [request.line for request in upstream.requests] == [b"GET /v1/models HTTP/1.1"]


async def test_nothing_behind_a_refused_request_is_believed(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    for raw in (head(b"Expect: zebra\r\n"), head(method=b"CONNECT"), lengths(b"0", b"5")):
        caller, _, _ = await exchanged(running.port, raw + get() * 3)
        assert await caller.read_rest() == b""
    assert upstream.connections == 0


TRAILING = {
    "served": (200, CLIENT, b"/v1/x"),
    "refused for its key": (401, b"", b"/v1/x"),
    "refused for its path": (404, CLIENT, b"/zebra"),
    "not alive": (404, CLIENT, b"/livez"),
}


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("status", "key", "target"), TRAILING.values(), ids=TRAILING)
async def test_trailer_is_no_field_of_the_next_request(status, key, target, together, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    trailing = b"POST %b HTTP/1.1\r\n%b%bTransfer-Encoding: chunked\r\n\r\n" % (target, HOST, key)
    trailing += b"5\r\nzebra\r\n0\r\nX-Zebra: 1\r\nX-Serinus-Key: client-key\r\n\r\n"
    keyless = get(fields=b"Connection: close\r\n").replace(CLIENT, b"")
    await caller.send(trailing + keyless if together else trailing)
    assert (await caller.answer()).status == status
    if not together:
        with suppress(ConnectionError):
            await caller.send(keyless)
    assert b" 200 " not in await caller.read_rest()
    assert len(upstream.requests) == (status == 200)


async def test_oversized_head_behind_a_request_in_one_write_is_refused(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    _, big = REFUSED["head over 32 KiB in a hundred fields"]
    caller = await RawCaller.connect(running.port)
    await caller.send(get() + big)
    assert [(await caller.answer()).status, (await caller.answer()).status] == [200, 431]
    assert await caller.read_rest() == b""
    assert len(upstream.requests) == 1


async def test_expectation_is_met_here_and_not_forwarded(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(post(b"zebra", fields=b"Expect: 100-Continue\r\n")[:-5])
    assert (await caller.answer()).status == 100
    assert upstream.connections == 0
    await caller.send(b"zebra")
    assert (await caller.answer()).status == 200
    (request,) = upstream.requests
    assert request.field(b"expect") is None
    assert request.body == b"zebra"


async def test_no_body_is_asked_for_that_will_be_refused(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, route="max_body: 4B"))
    expecting = post(b"zebra", fields=b"Expect: 100-continue\r\n")[:-5]
    for raw, status in ((expecting, 413), (expecting.replace(b"client-key", b"zebra"), 401)):
        caller, answered, _ = await exchanged(running.port, raw)
        assert answered == status
        assert await caller.read_rest() == b""


async def test_request_that_comes_back_is_a_loop(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    await ask(running.port, get())
    (signed,) = [value for name, value in upstream.requests[0].fields if name == b"via"]
    for via in (signed, b"1.0 other, " + signed + b" (zebra)"):
        answer = await ask(running.port, get(fields=b"Via: %b\r\n" % via))
        assert answer.status == 508
    assert len(upstream.requests) == 1


async def test_request_id_of_the_caller_is_kept_and_another_made_where_there_is_none(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    for sent in (b"abc-123/4:5", b""):
        answer = await ask(running.port, get(fields=b"X-Request-Id: %b\r\n" % sent))
        seen = upstream.requests[-1].field(b"x-request-id")
        assert answer.field(b"x-request-id") == seen
        assert seen == sent or (not sent and seen)


async def test_caller_of_http10_gets_an_answer_that_ends_with_the_connection(scripted, proxy):
    upstream = await scripted(
        answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nzebra\r\n0\r\n\r\n")
    )
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(get(fields=b"Connection: keep-alive\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"))
    answer = await caller.answer()
    assert answer.payload == b"zebra"
    assert answer.field(b"transfer-encoding") is None
    assert answer.field(b"connection") == b"close"


@pytest.mark.parametrize("target", [b"/livez", b"/zebra", b"/v1/models"])
async def test_connection_of_http10_ends_with_its_first_answer(target, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(get(target, fields=b"Connection: keep-alive\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (await caller.answer()).field(b"connection") == b"close"
    assert await caller.read_rest() == b""


async def test_refusal_through_tls_ends_the_connection(tmp_path, proxy):
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
    (tmp_path / "cert.pem").chmod(0o600)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    certificate = f"tls: {{cert: {tmp_path}/cert.pem, key: {tmp_path}/cert.pem}}"
    listen = f"listen: [{{address: '127.0.0.1:0', {certificate}}}]"
    running = await proxy(config_for("http://127.0.0.1:1/v1", top=listen))
    running.serinus.data_plane.watch.stop()  # no time limit helps
    for status, raw in (REFUSED["no Host"], REFUSED["chunk size that is none"], REFUSED["unknown expectation"]):
        caller = await RawCaller.connect(running.port, ssl=trust)
        await caller.send(raw)
        assert (await caller.answer()).status == status
        assert await caller.read_rest() == b""


async def test_error_to_a_head_request_has_no_body(proxy):
    running = await proxy(config_for("http://127.0.0.1:1/v1"))
    caller = await RawCaller.connect(running.port)
    await caller.send(
        b"HEAD /zebra HTTP/1.1\r\n" + HOST + CLIENT + b"\r\n", b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n"
    )
    assert (await caller.answer(to_head=True)).status == 404
    assert (await caller.answer()).payload == b"ok\n"
