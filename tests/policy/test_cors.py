"""Which pages may read answers: what is said to an origin that is listed, and that nothing is said to any other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.cors import PREFLIGHT_MAX_AGE_S, Cors

APP, OTHER = b"https://app.example", b"http://localhost:3000"
LISTED = Cors(frozenset([APP, OTHER]))
ANY = Cors(frozenset([b"*"]), any_origin=True)
EXPOSED = b"\r\naccess-control-expose-headers: *"
VARY = b"\r\nvary: origin"

NOT_LISTED = [
    b"https://app.example.evil.example",
    b"https://evil.example",
    b"https://app.example:443",
    b"http://app.example",
    b"https://APP.example",
    b"https://app.example/",
    b"https://app.example, https://evil.example",
    b"app.example",
    b"null",
    b"*",
    b"",
]


@pytest.mark.parametrize("origin", [APP, OTHER])
@pytest.mark.parametrize("name", [b"Origin", b"origin", b"ORIGIN"])
def test_listed_origin_is_named_and_caches_are_told(origin, name):
    allowed = LISTED.answer([(b"Accept", b"*/*"), (name, origin)])
    assert allowed == b"\r\naccess-control-allow-origin: " + origin + EXPOSED + VARY


@pytest.mark.parametrize("origin", NOT_LISTED)
def test_other_origin_gets_nothing_and_caches_are_told(origin):
    assert LISTED.answer([(b"Origin", origin)]) == VARY


@given(st.binary())
def test_no_origin_is_repeated_that_is_not_listed(origin):
    assert LISTED.answer([(b"Origin", origin)]) == VARY or origin in LISTED.origins


def test_caller_that_is_no_page_gets_nothing():
    assert LISTED.answer([(b"Accept", b"*/*")]) == VARY
    assert ANY.answer([]) == b""


@pytest.mark.parametrize("origin", [APP, b"https://evil.example", b"null"])
def test_star_is_said_as_such(origin):
    assert ANY.answer([(b"Origin", origin)]) == b"\r\naccess-control-allow-origin: *" + EXPOSED


def preflight(*more, origin=APP, method=b"OPTIONS", cors=LISTED):
    return cors.preflight(method, [(b"Origin", origin), *more])


ASKED = (b"Access-Control-Request-Method", b"POST")


def test_preflight_grants_what_was_asked_for():
    headers = (b"Access-Control-Request-Headers", b"authorization,content-type,x-stainless-os")
    assert preflight(ASKED, headers).split(b"\r\n") == [
        b"",
        b"access-control-allow-origin: " + APP,
        b"access-control-expose-headers: *",
        b"vary: origin",
        b"access-control-allow-methods: POST",
        b"access-control-allow-headers: authorization,content-type,x-stainless-os",
        b"access-control-max-age: %d" % PREFLIGHT_MAX_AGE_S,
    ]


def test_preflight_without_headers_grants_none():
    assert b"allow-headers" not in preflight(ASKED)


def test_no_answer_allows_credentials():
    assert b"credentials" not in preflight(ASKED) + preflight(ASKED, cors=ANY)


NO_PREFLIGHTS = {
    "other method": preflight(ASKED, method=b"POST"),
    "lower case": preflight(ASKED, method=b"options"),
    "plain OPTIONS": preflight(),
    "empty method": preflight((b"Access-Control-Request-Method", b"")),
    "other origin": preflight(ASKED, origin=b"https://evil.example"),
    "no origin": LISTED.preflight(b"OPTIONS", [ASKED]),
}


@pytest.mark.parametrize("name", NO_PREFLIGHTS)
def test_what_is_no_preflight(name):
    assert NO_PREFLIGHTS[name] == b""
