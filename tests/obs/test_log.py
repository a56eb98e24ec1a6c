import json
import logging

import pytest

from proxy.model.secret import Secret, fingerprint
from proxy.obs.access_lines import MOST_HELD, AccessLines
from proxy.obs.log import access_log, configure

SECRET = Secret("sk-S3CR3T")


def lines(written):
    return [json.loads(line) for line in written.getvalue().splitlines()]


def raised(what):
    with pytest.raises(LookupError) as caught:
        raise LookupError(what)
    return caught.value


def test_an_event_is_one_object_on_one_line(written):
    configure("info", "json", written).info("key_rotated", upstream="openai", drained_s=1.5, text="two\nlines")
    (line,) = lines(written)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "key_rotated",
        "level": "info",
        "upstream": "openai",
        "drained_s": 1.5,
        "text": "two\nlines",
    }


def test_levels_below_the_configured_one_are_left_out(written):
    log = configure("warning", "json", written)
    for method in (log.debug, log.info, log.warning, log.error):
        method("event")
    assert [line["level"] for line in lines(written)] == ["warning", "error"]


@pytest.mark.parametrize("style", ["json", "console"])
def test_secret_is_shown_as_its_fingerprint(written, style):
    log = configure("info", style, written)
    log.info("event", key=SECRET, keys=[SECRET], by_name={"main": SECRET})
    log.error("failed", exc_info=raised(SECRET))
    assert written.getvalue().count(fingerprint("sk-S3CR3T")) == 4
    assert "S3CR3T" not in written.getvalue()


def test_console_is_plain_where_no_terminal_is(written):
    configure("info", "console", written).info("serving", port=80)
    assert "serving" in written.getvalue()
    assert "\x1b" not in written.getvalue()


@pytest.mark.parametrize("style", ["json", "console"])
def test_error_has_its_traceback(written, style):
    configure("info", style, written).error("failed", exc_info=raised("no such thing"))
    assert "LookupError: no such thing" in written.getvalue()
    assert "test_log.py" in written.getvalue()


def test_name_that_is_no_text_is_logged_all_the_same(written):
    configure("info", "json", written).info("event", path="caf\udce9", key=SECRET)
    (line,) = lines(written)
    assert line["path"] == "caf\udce9"
    assert line["key"] == repr(SECRET)


def test_closed_stream_stops_nothing(written):
    log = configure("info", "json", written)
    written.close()
    log.info("event")
    access_log(log)(request_id="1")


def test_full_disk_stops_nothing(written, monkeypatch):
    def full():
        raise OSError(28, "No space left on device")

    log = configure("info", "json", written)
    monkeypatch.setattr(written, "flush", full)
    log.info("event")


def test_warnings_of_libraries_are_adopted(written):
    configure("info", "json", written)
    logging.getLogger("asyncio").warning("slow: %s", "callback")
    logging.getLogger("asyncio").info("nobody asked")
    logging.getLogger("aiohttp.server").critical("worse")
    found = [(line["event"], line["level"], line["logger"], line["message"]) for line in lines(written)]
    assert found == [
        ("library_log", "warning", "asyncio", "slow: callback"),
        ("library_log", "error", "aiohttp.server", "worse"),
    ]


def test_librarys_message_that_cannot_be_formatted_harms_nobody(written):
    configure("info", "json", written)
    logging.getLogger("careless").error("%d things", "no number")
    assert lines(written)[0]["message"] == "%d things"


def test_access_log_has_a_line_a_request(written):
    access_log(configure("info", "json", written))(request_id="1", status=200, client=None)
    (line,) = lines(written)
    assert (line["event"], line["request_id"], line["status"], line["client"]) == ("request", "1", 200, None)


FIELDS = {"request_id": "1", "path": "/v1/x", "client": None, "status": 200, "ttfb_ms": 0.25, "outcome": "ok"}


def test_access_lines_are_those_of_the_log_and_written_together(written):
    access_log(configure("info", "json", written))(**FIELDS)
    access = AccessLines(written)
    for _ in range(2):
        access(**FIELDS)
    assert len(lines(written)) == 1
    access.expired(0)
    first, *others = lines(written)
    assert first.pop("timestamp")[-1] == others[0].pop("timestamp")[-1] == others[1].pop("timestamp")[-1] == "Z"
    assert others == [first, first]


def test_many_access_lines_are_not_held(written):
    access = AccessLines(written)
    for _ in range(MOST_HELD + 1):
        access(**FIELDS)
    assert len(lines(written)) == MOST_HELD
    access.flush()
    assert len(lines(written)) == MOST_HELD + 1


def test_access_lines_outlive_a_stream_that_was_closed(written):
    access = AccessLines(written)
    access(**FIELDS)
    written.close()
    access.flush()
    access(**FIELDS)
    access.expired(0)
