"""What is read from a request's fields, for any fields there may be."""

import posixpath
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.model.errors import BadRequest, ExpectationFailed, LoopDetected, MalformedRequest, UnknownCoding
from proxy.policy import fields
from proxy.policy.fields import TRACEPARENT_VALUE, Kind, Pair, kind_of, read_fields
from proxy.policy.target import check_host, check_inside, origin_form

HOST = (b"Host", b"proxy")
TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

names = st.text(TOKEN, min_size=1, max_size=20).map(str.encode)
values = st.binary(max_size=20).map(lambda value: value.translate(None, b"\r\n\x00").strip())
plain = st.tuples(names.filter(lambda name: kind_of(name) is Kind.PASS), values)
spelt = st.sampled_from(
    ["x-forwarded-for", "X-Real-IP", "Forwarded", "TE", "Trailer", "Upgrade", "Keep-Alive"]
).flatmap(lambda name: st.sampled_from([name.encode(), name.lower().encode(), name.upper().encode()]))
dropped = st.tuples(spelt | names.map(lambda name: b"X-Serinus-" + name), values)


def read(*pairs: Pair, http11: bool = True):
    return read_fields((HOST, *pairs), http11=http11, via_id=b"serinus-1")


@given(st.lists(plain))
def test_unknown_fields_pass_as_they_are(pairs):
    assert read(*pairs).passed == pairs


@given(st.lists(plain), st.lists(dropped), st.randoms())
def test_what_is_not_the_callers_to_say_is_dropped_wherever_it_stands(pairs, more, random):
    mixed = pairs + more
    random.shuffle(mixed)
    assert read(*mixed).passed == [pair for pair in mixed if pair in pairs and kind_of(pair[0]) is Kind.PASS]


@given(st.lists(plain, max_size=6), st.data())
def test_nominated_fields_go_and_no_others(pairs, data):
    nominated = data.draw(st.lists(st.sampled_from([name for name, _ in pairs]), max_size=3) if pairs else st.just([]))
    kept = {b"cookie", b"content-type"}
    gone = {name.lower() for name in nominated} - kept - {b"close", b"keep-alive"}
    found = read((b"Connection", b" , ".join(name.upper() for name in nominated)), *pairs)
    assert found.passed == [pair for pair in pairs if pair[0].lower() not in gone]


@pytest.mark.parametrize(
    "name", [b"Authorization", b"x-api-key", b"API-KEY", b"Content-Length", b"Content-Type", b"Via"]
)
def test_nomination_never_removes(name):
    pairs = (name, b"1"), (b"Connection", name)
    for found in (read(*pairs), read(*reversed(pairs))):
        kept = dict(found.passed) | dict(found.credentials)
        assert kept.get(name) or kept.get(name.lower()) or found.content_length == 1


@given(names, st.sampled_from([str.lower, str.upper, str.title]))
def test_kind_does_not_depend_on_case(name, change):
    assert kind_of(change(name.decode()).encode()) is kind_of(name)


def test_spellings_without_end_are_not_all_remembered():
    before = len(fields._known)
    kind_of(b"x-" + b"long" * 1000)
    assert len(fields._known) == before
    for number in range(2 * fields._KNOWN_MAX):
        kind_of(b"x-%d" % number)
    assert len(fields._known) <= fields._KNOWN_MAX


# --- trace context -------------------------------------------------------------------------------------------------

STATE = (b"TraceState", b"a=1")


def hex_of(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size).filter(any).map(lambda value: value.hex().encode())


versions = st.integers(0, 0xFE).map(lambda number: b"%02x" % number)
traces = st.builds(lambda *parts: b"-".join(parts), versions, hex_of(16), hex_of(8), st.just(b"01"))


@given(traces, st.lists(plain), st.lists(st.tuples(st.sampled_from([b"tracestate", b"TraceState"]), values)))
def test_a_trace_goes_on_with_its_state(trace, pairs, states):
    found = read((b"TraceParent", trace), *pairs, *states)
    assert (found.traceparent, found.passed) == (trace, pairs + states)


@given(st.lists(plain))
def test_without_a_trace_there_is_no_state(pairs):
    found = read(STATE, *pairs, STATE)
    assert (found.traceparent, found.passed) == (None, pairs)


@given(values | traces.map(bytes.upper) | traces.map(lambda trace: trace[:-1]), st.lists(plain))
def test_a_trace_that_is_none_is_not_believed(value, pairs):
    assume(TRACEPARENT_VALUE.fullmatch(value) is None)
    found = read(STATE, (b"traceparent", value), *pairs)
    assert (found.traceparent, found.passed) == (b"", pairs)


def test_only_versions_to_come_may_have_more_behind():
    known = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
    assert read((b"traceparent", known)).traceparent == known
    assert read((b"traceparent", known + b"-more")).traceparent == b""
    assert read((b"traceparent", b"01" + known[2:] + b"-more")).traceparent == b"01" + known[2:] + b"-more"


@given(st.lists(traces | values, min_size=2, max_size=3))
def test_of_several_traces_none_is_believed(several):
    found = read(STATE, *((b"traceparent", value) for value in several))
    assert (found.traceparent, found.passed) == (b"", [])


REFUSED = {
    "no host": (MalformedRequest, ()),
    "two hosts": (MalformedRequest, (HOST, HOST)),
    "coding and length": (MalformedRequest, (HOST, (b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"1"))),
    "length of 2^63": (MalformedRequest, (HOST, (b"Content-Length", b"%d" % 2**63))),
    "two codings": (MalformedRequest, (HOST, (b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"chunked"))),
    "list of codings": (MalformedRequest, (HOST, (b"Transfer-Encoding", b"gzip, chunked"))),
    "no coding": (MalformedRequest, (HOST, (b"Transfer-Encoding", b""))),
    "unknown coding": (UnknownCoding, (HOST, (b"Transfer-Encoding", b"gzip"))),
    "expectation": (ExpectationFailed, (HOST, (b"Expect", b"200-ok"))),
    "loop": (LoopDetected, (HOST, (b"via", b"1.1 a, 1.1 serinus-1"))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    error, pairs = REFUSED[name]
    with pytest.raises(error):
        read_fields(pairs, http11=True, via_id=b"serinus-1")


@given(st.binary(max_size=12))
def test_a_coding_is_chunked_or_refused(value):
    try:
        assert read((b"Transfer-Encoding", value)).chunked
    except MalformedRequest:
        assert value.lower() != b"chunked"
    else:
        assert value.lower() == b"chunked"


# --- hosts and targets ---------------------------------------------------------------------------------------------


@given(st.from_regex(rb"\A[a-z0-9-]{1,20}(\.[a-z0-9-]{1,9}){0,3}\Z"), st.none() | st.integers(0, 65535))
def test_host_with_or_without_a_port_passes(name, port):
    check_host(name if port is None else b"%b:%d" % (name, port))


@given(st.binary(max_size=10), st.sampled_from(list(b' ,/@?#\\\r\n\0%<>"\xe9')), st.binary(max_size=10))
def test_host_with_a_byte_of_another_place_is_refused(before, byte, after):
    with pytest.raises(MalformedRequest):
        check_host(before + bytes([byte]) + after)


@given(st.binary(max_size=40))
def test_origin_form_is_a_path_of_visible_bytes_or_refused(target):
    try:
        found = origin_form(target)
    except MalformedRequest:
        return
    assert found.startswith(b"/")
    assert all(0x21 <= byte <= 0x7E and byte != ord("#") for byte in found)
    assert target.endswith(found) or found == b"/"


@given(
    st.sampled_from([b"http", b"HTTPS"]),
    st.from_regex(rb"\A[a-z0-9.]{1,12}(:[0-9]{1,4})?\Z"),
    st.from_regex(rb"\A/[a-z/?]*\Z"),
)
def test_authority_of_an_absolute_target_is_left_aside(scheme, authority, path):
    assert origin_form(scheme + b"://" + authority + path) == path


segments = st.sampled_from(
    [b"a", b"b", b"", b".", b"..", b"%2e", b"%2E%2e", b".%2e", b"...", b"..a", b"a;b", b"..;b", b".;"]
)
slashes = st.sampled_from([b"/", b"//", b"\\", b"%2f", b"%2F", b"%5c"])


@given(st.lists(st.tuples(slashes, segments), max_size=8), st.sampled_from([b"", b"?/../.."]))
def test_a_path_that_is_let_through_stays_inside_however_it_is_decoded(pieces, query):
    path = b"".join(slash + segment for slash, segment in pieces)
    try:
        check_inside(b"/prefix" + path + query, len(b"/prefix"))
    except BadRequest:
        return
    decoded = unquote_to_bytes(path).replace(b"\\", b"/")
    for read_as in (path, decoded, b"/".join(segment.split(b";")[0] for segment in decoded.split(b"/"))):
        assert inside(b"/prefix" + (read_as if read_as.startswith(b"/") else b"/" + read_as))


def inside(path: bytes) -> bool:
    normal = posixpath.normpath(path.replace(b"//", b"/").replace(b"//", b"/"))
    return normal == b"/prefix" or normal.startswith(b"/prefix/")


@given(st.lists(st.sampled_from([b"a", b"b.c", b"...", b"%41"])))
def test_a_path_without_dot_segments_is_let_through(pieces):
    check_inside(b"".join(b"/" + piece for piece in pieces), 0)


def test_query_may_hold_dots():
    check_inside(b"/a?b=../../..", 0)
