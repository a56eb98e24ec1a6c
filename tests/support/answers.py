"""Answers that an upstream must not send: what a proxy refuses before it has passed on a byte."""


def _ok(*fields: bytes, body: bytes = b"hello") -> bytes:
    """A 200 with these fields and a body that should never be seen."""
    return b"HTTP/1.1 200 OK\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def _status_line(line: bytes) -> bytes:
    return line + b"\r\nContent-Length: 5\r\n\r\nhello"


_CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# Each is refused as soon as its last byte has come, however it is cut; the connection may stay open.
NO_ANSWERS: dict[str, bytes] = {
    # what is not HTTP/1.x
    "tls alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "http2 settings frame": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64",
    "http 0.9": b"<html>hello</html>",
    "http 0.9 with an empty line": b"<html>\r\n\r\nhello</html>",
    "ssh banner": b"SSH-2.0-OpenSSH_9.6\r\n",
    "rtsp": _status_line(b"RTSP/1.1 200 OK"),
    "icecast": _status_line(b"ICE/1.0 200 OK"),
    "lower-case protocol": _status_line(b"http/1.1 200 OK"),
    "empty line first": b"\r\n" + _status_line(b"HTTP/1.1 200 OK"),
    "two empty lines first": b"\r\n\r\n" + _status_line(b"HTTP/1.1 200 OK"),
    "chunks left over from another answer": _CHUNKS,
    # the status line
    "version 2.0": _status_line(b"HTTP/2.0 200 OK"),
    "version 2": _status_line(b"HTTP/2 200"),
    "version 0.9": _status_line(b"HTTP/0.9 200 OK"),
    "version 1.2": _status_line(b"HTTP/1.2 200 OK"),
    "version 1.10": _status_line(b"HTTP/1.10 200 OK"),
    "status 99": _status_line(b"HTTP/1.1 99 Low"),
    "status 099": _status_line(b"HTTP/1.1 099 Low"),
    "status 000": _status_line(b"HTTP/1.1 000 None"),
    "status 600": _status_line(b"HTTP/1.1 600 High"),
    "status 999": _status_line(b"HTTP/1.1 999 High"),
    "status 20": _status_line(b"HTTP/1.1 20 Short"),
    "status 2000": _status_line(b"HTTP/1.1 2000 Long"),
    "status abc": _status_line(b"HTTP/1.1 abc Letters"),
    "status +20": _status_line(b"HTTP/1.1 +20 Sign"),
    "status in Arabic digits": _status_line(b"HTTP/1.1 \xd9\xa2\xd9\xa0\xd9\xa0 OK"),
    "no status": _status_line(b"HTTP/1.1"),
    "status without a blank behind it": _status_line(b"HTTP/1.1 200OK"),
    "two blanks before the status": _status_line(b"HTTP/1.1  200 OK"),
    "tab before the status": _status_line(b"HTTP/1.1\t200 OK"),
    "NUL in the reason": _status_line(b"HTTP/1.1 200 O\0K"),
    "control byte in the reason": _status_line(b"HTTP/1.1 200 O\x01K"),
    "escape sequence in the reason": _status_line(b"HTTP/1.1 200 \x1b[2JOK"),
    "DEL in the reason": _status_line(b"HTTP/1.1 200 O\x7fK"),
    "CR in the reason": _status_line(b"HTTP/1.1 200 O\rK"),
    "LF in the reason": _status_line(b"HTTP/1.1 200 O\nK"),
    # Content-Length
    "conflicting lengths": _ok(b"Content-Length: 5", b"Content-Length: 6"),
    "duplicate lengths": _ok(b"Content-Length: 5", b"Content-Length: 5"),
    "list of lengths": _ok(b"Content-Length: 5, 5"),
    "signed length": _ok(b"Content-Length: +5"),
    "negative length": _ok(b"Content-Length: -5"),
    "hex length": _ok(b"Content-Length: 0x5"),
    "hex length without 0x": _ok(b"Content-Length: a"),
    "length with an underscore": _ok(b"Content-Length: 1_0"),
    "length with a blank inside": _ok(b"Content-Length: 1 0"),
    "fractional length": _ok(b"Content-Length: 5.0"),
    "length in Arabic digits": _ok(b"Content-Length: \xd9\xa5"),
    "empty length": _ok(b"Content-Length:"),
    "length beyond 64 bits": _ok(b"Content-Length: 18446744073709551616"),
    "length beyond 63 bits": _ok(b"Content-Length: 9223372036854775808"),
    "length of 4,000 digits": _ok(b"Content-Length: " + b"9" * 4000),
    # Transfer-Encoding
    "length, then coding": _ok(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=_CHUNKS),
    "coding, then length": _ok(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=_CHUNKS),
    "length with an unknown coding": _ok(b"Content-Length: 5", b"Transfer-Encoding: x-own"),
    "unknown coding": _ok(b"Transfer-Encoding: x-own"),
    "identity coding": _ok(b"Transfer-Encoding: identity"),
    "gzip coding": _ok(b"Transfer-Encoding: gzip"),
    "gzip, chunked": _ok(b"Transfer-Encoding: gzip, chunked", body=_CHUNKS),
    "chunked, gzip": _ok(b"Transfer-Encoding: chunked, gzip", body=_CHUNKS),
    "chunked, chunked": _ok(b"Transfer-Encoding: chunked, chunked", body=_CHUNKS),
    "coding twice": _ok(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=_CHUNKS),
    "two codings": _ok(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", body=_CHUNKS),
    "empty coding": _ok(b"Transfer-Encoding:", body=_CHUNKS),
    "comma before chunked": _ok(b"Transfer-Encoding: , chunked", body=_CHUNKS),
    "quoted coding": _ok(b'Transfer-Encoding: "chunked"', body=_CHUNKS),
    "coding with a parameter": _ok(b"Transfer-Encoding: chunked;q=1", body=_CHUNKS),
    "coding with a prefix": _ok(b"Transfer-Encoding: xchunked", body=_CHUNKS),
    "coding with a tab behind": _ok(b"Transfer-Encoding: chunked\t", body=_CHUNKS),
    "coding with a vertical tab": _ok(b"Transfer-Encoding: \x0bchunked", body=_CHUNKS),
    "coding from an HTTP/1.0 upstream": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + _CHUNKS,
    # the fields' grammar
    "NUL in a value": _ok(b"X-Own: a\0b", b"Content-Length: 5"),
    "control byte in a value": _ok(b"X-Own: a\x01b", b"Content-Length: 5"),
    "DEL in a value": _ok(b"X-Own: a\x7fb", b"Content-Length: 5"),
    "bare LF": _ok(b"X-Own: a\nX-More: b", b"Content-Length: 5"),
    "bare CR": _ok(b"X-Own: a\rX-More: b", b"Content-Length: 5"),
    "only bare LF": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello\r\n\r\n",
    "folded value": _ok(b"X-Own: a\r\n b", b"Content-Length: 5"),
    "folded with a tab": _ok(b"X-Own: a\r\n\tb", b"Content-Length: 5"),
    "blank before the first name": _ok(b" X-Own: a", b"Content-Length: 5"),
    "blank before the colon": _ok(b"Content-Length : 5"),
    "tab before the colon": _ok(b"Content-Length\t: 5"),
    "blank in a name": _ok(b"X Own: a", b"Content-Length: 5"),
    "8-bit name": _ok(b"X-\xe9: a", b"Content-Length: 5"),
    "NUL in a name": _ok(b"X-\0: a", b"Content-Length: 5"),
    "empty name": _ok(b": a", b"Content-Length: 5"),
    "no colon": _ok(b"X-Own", b"Content-Length: 5"),
    # too much of it
    "over 64 KiB of head": _ok(b"X-Own: " + b"a" * 65536, b"Content-Length: 5"),
    "over 64 KiB without an end": b"HTTP/1.1 200 OK\r\nX-Own: " + b"a" * 66000,
    "129 fields": _ok(*(b"X-%d: a" % number for number in range(128)), b"Content-Length: 5"),
    "11 interim answers": _CONTINUE * 11 + _status_line(b"HTTP/1.1 200 OK"),
    # interim answers
    "unasked 101": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: own\r\n\r\nhello",
    "unasked 101 without its fields": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "unasked 101 after a 100": _CONTINUE + b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "100, then no HTTP": _CONTINUE + b"<html>hello</html>",
    "100 of HTTP/2.0": b"HTTP/2.0 100 Continue\r\n\r\n" + _status_line(b"HTTP/1.1 200 OK"),
    "100 with a control byte": b"HTTP/1.1 100 Continue\r\nX-Own: \x01\r\n\r\n" + _status_line(b"HTTP/1.1 200 OK"),
}

_CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
GOOD_CHUNK = b"5\r\nhello\r\n"

# Heads that are good, one good chunk, and then what no chunk is: (what was good, what is not).
BROKEN_CHUNKS: dict[str, tuple[bytes, bytes]] = {
    name: (_CHUNKED_HEAD + GOOD_CHUNK, broken)
    for name, broken in {
        "chunk size with 0x": b"0x5\r\nhello\r\n",
        "signed chunk size": b"+5\r\nhello\r\n",
        "negative chunk size": b"-5\r\nhello\r\n",
        "chunk size with an underscore": b"1_0\r\nhello\r\n",
        "chunk size with a blank": b"5 \r\nhello\r\n",
        "no chunk size": b"\r\nhello\r\n",
        "only an extension": b";a=b\r\nhello\r\n",
        "letters for a chunk size": b"xyz\r\nhello\r\n",
        "chunk size beyond 64 bits": b"10000000000000005\r\nhello\r\n",
        "more data than the chunk's size": b"5\r\nhello, world\r\n",
        "less data than the chunk's size": b"9\r\nhello\r\n0\r\n\r\nmore",
        "bare LF after the size": b"5\nhello\r\n",
        "bare LF after the data": b"5\r\nhello\n0\r\n\r\n",
        "bare CR after the size": b"5\rhello\r\n",
        "CR in an extension": b"5;a\rb\r\nhello\r\n",
        "NUL in an extension": b"5;\0\r\nhello\r\n",
        "control byte in a trailer": b"0\r\nX-Own: \x01\r\n\r\n",
        "folded trailer": b"0\r\nX-Own: a\r\n b\r\n\r\n",
        "a length among the trailers": b"0\r\nContent-Length: 5\r\n\r\n",
    }.items()
}
