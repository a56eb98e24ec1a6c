"""Calls on what an upstream made go back to it, with the key that made it, however its id came and comes back."""

import asyncio
import gzip
import itertools
import json

import pytest

from proxy.state import makers as module
from proxy.state.makers import KEPT_S
from tests.support.raw import RawCaller, ask, get, post
from tests.support.running import config_for
from tests.support.scripted import answering, whole

FORM = b"Content-Type: multipart/form-data; boundary=b0\r\n"
UPLOAD = b'--b0\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--b0--\r\n'
BATCH = b'{"input_file_id":"file-unknown"}'


def made(body, **more):
    """An answer that hands out an id: `%b` stands for it in `body`."""
    return lambda new: whole(body % new, **more)


class Keeper:
    """A script that makes a new id for each POST, and answers as it is told."""

    def __init__(self, name, answer):
        self.name, self.answer, self.count = name, answer, itertools.count()

    async def __call__(self, talk):
        while True:
            await talk.request()
            new = b"%b_%d" % (self.name, next(self.count))
            answer = self.answer(new)
            await talk.send(*([answer] if isinstance(answer, bytes) else answer))
            if b"connection: close" in b"".join(answer if isinstance(answer, list) else [answer]).lower():
                return


@pytest.fixture
def keepers(scripted):
    """Starts upstreams that hand out ids `up0_0`, `up1_0`, … in answers made by `answer(id)`."""

    async def start(answer, count=2):
        return [await scripted(Keeper(b"up%d" % number, answer)) for number in range(count)]

    return start


def maker_of(one):
    """Which upstream makes such ids."""
    return one.partition(b"_")[0]


def remembered(running):
    return running.serinus.data_plane._full_lane._handler._tools.makers.made


async def served_by(running, request):
    answer = await ask(running.port, request)
    return answer.field(b"x-serinus-upstream")


async def create(running, request, count=4):
    """The ids that so many calls made, of more than one upstream."""
    for _ in range(count):
        assert (await ask(running.port, request)).whole
    ids = [one for one in remembered(running) if maker_of(one).startswith(b"up")]
    assert len({maker_of(one) for one in ids}) > 1, ids
    return ids


# --- what is made, and how it is spoken of ----------------------------------------------------------------------------

OBJECT = made(b'{"id":"%b","object":"own"}')
RESPONSE = post(b'{"model":"m","input":"x"}', target=b"/v1/responses")

CREATIONS: dict[str, tuple[bytes, object, list[bytes]]] = {
    "response": (
        RESPONSE,
        OBJECT,
        [
            get(b"/v1/responses/%b"),
            get(b"/v1/responses/%b").replace(b"GET", b"DELETE"),
            get(b"/v1/responses/%b").replace(b"GET", b"HEAD"),
            get(b"/v1/responses/%b?stream=true&starting_after=1"),
            get(b"/v1/responses/%b/input_items?limit=2"),
            post(b"", target=b"/v1/responses/%b/cancel"),
            get(b"http://elsewhere/v1/responses/%b"),
        ],
    ),
    "file": (
        post(UPLOAD, target=b"/v1/files", fields=FORM),
        OBJECT,
        [get(b"/v1/files/%b"), get(b"/v1/files/%b/content"), get(b"/v1/files/%b").replace(b"GET", b"DELETE")],
    ),
    "thread": (
        post(b"{}", target=b"/v1/threads"),
        OBJECT,
        [get(b"/v1/threads/%b/messages"), post(b'{"assistant_id":"a"}', target=b"/v1/threads/%b/runs")],
    ),
    "thread and run": (
        post(b'{"assistant_id":"a"}', target=b"/v1/threads/runs"),
        made(b'{"id":"run_1","object":"thread.run","thread_id":"%b"}'),
        [get(b"/v1/threads/%b/runs/run_2")],
    ),
    "batch": (post(BATCH, target=b"/v1/batches"), OBJECT, [get(b"/v1/batches/%b")]),
    "anthropic's batch": (
        post(b'{"requests":[]}', target=b"/anthropic/v1/messages/batches", fields=b"anthropic-version: 1\r\n"),
        OBJECT,
        [get(b"/anthropic/v1/messages/batches/%b/results"), post(b"", target=b"/anthropic/messages/batches/%b/cancel")],
    ),
    "conversation": (post(b"{}", target=b"/v1/conversations"), OBJECT, [get(b"/v1/conversations/%b/items")]),
    "stored chat completion": (
        post(b'{"model":"m","store":true}'),
        OBJECT,
        [get(b"/v1/chat/completions/%b"), get(b"/v1/chat/completions/%b/messages")],
    ),
    "vector store": (
        post(b'{"name":"x"}', target=b"/v1/vector_stores"),
        OBJECT,
        [get(b"/v1/vector_stores/%b/files"), post(b'{"query":"x"}', target=b"/v1/vector_stores/%b/search")],
    ),
    "fine-tuning": (post(b"{}", target=b"/v1/fine_tuning/jobs"), OBJECT, [get(b"/v1/fine_tuning/jobs/%b/events")]),
    "upload": (post(b"{}", target=b"/v1/uploads"), OBJECT, [post(UPLOAD, target=b"/v1/uploads/%b/parts", fields=FORM)]),
    "container": (post(b"{}", target=b"/v1/containers"), OBJECT, [get(b"/v1/containers/%b/files/cfile_1/content")]),
    "video": (post(UPLOAD, target=b"/v1/videos", fields=FORM), OBJECT, [get(b"/v1/videos/%b/content")]),
}


@pytest.mark.parametrize("case", CREATIONS)
async def test_calls_go_back_to_the_maker(case, keepers, proxy):
    request, answer, calls = CREATIONS[case]
    upstreams = await keepers(answer)
    running = await proxy(config_for(*(upstream.url for upstream in upstreams)))
    for one in await create(running, request):
        for call in calls:
            assert await served_by(running, call.replace(b"%b", one)) == maker_of(one)


REFERENCES = {
    "previous response": (b"/v1/responses", b'{"model":"m","previous_response_id":"%b"}'),
    "conversation": (b"/v1/responses", b'{"model":"m","conversation":"%b"}'),
    "conversation as an object": (b"/v1/responses", b'{"conversation": {"id": "%b"}}'),
    "file in a chat": (
        b"/v1/chat/completions",
        b'{"model":"m","messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"%b"}}]}]}',
    ),
    "file of a batch": (b"/v1/batches", b'{"input_file_id":"%b","endpoint":"/v1/responses"}'),
    "file of a message": (
        b"/anthropic/v1/messages",
        b'{"messages":[{"content":[{"type":"document","source":{"type":"file","file_id":"%b"}}]}]}',
    ),
    "vector store of a tool": (b"/v1/responses", b'{"tools":[{"type":"file_search","vector_store_ids":["%b"]}]}'),
    "container of a tool": (b"/v1/responses", b'{"tools":[{"type":"code_interpreter","container":"%b"}]}'),
    "behind an unknown one": (b"/v1/responses", b'{"file_id":"unknown","previous_response_id":"%b"}'),
    "behind what only looks like one": (b"/v1/responses", b'{"input":"\\"file_id\\":\\"x\\"","conversation":"%b"}'),
    "with blanks": (b"/v1/responses", b'{ "previous_response_id"\n:\t"%b" }'),
    "in a long body": (b"/v1/responses", b'{"input":"' + b"x" * 100_000 + b'","previous_response_id":"%b"}'),
}


@pytest.mark.parametrize("case", REFERENCES)
async def test_bodies_bring_ids_back(case, keepers, proxy):
    target, body = REFERENCES[case]
    upstreams = await keepers(OBJECT)
    running = await proxy(config_for(*(upstream.url for upstream in upstreams)))
    for one in await create(running, post(b"{}", target=b"/v1/conversations")):
        for _ in range(2):
            assert await served_by(running, post(body % one, target=target)) == maker_of(one)


NO_REFERENCES = {
    "quoted by the user": b'{"input":"my \\"previous_response_id\\":\\"%b\\" is lost"}',
    "mentioned": b'{"input":"%b","model_id":1}',
    "another key": b'{"model":"%b","user_id":null}',
    "a part of one": b'{"previous_response_id":"%b0","n":1}',
    "half of one": b'{"previous_response_id":"x%b","n":1}',
}


@pytest.mark.parametrize("case", NO_REFERENCES)
async def test_what_is_no_reference_is_spread_as_ever(case, keepers, proxy):
    upstreams = await keepers(OBJECT)
    running = await proxy(config_for(*(upstream.url for upstream in upstreams)))
    (one, *_) = await create(running, RESPONSE)
    call = post(NO_REFERENCES[case] % one)
    assert {await served_by(running, call) for _ in range(4)} == {b"up0", b"up1"}


async def test_unknown_ids_go_to_the_first_of_the_pool(keepers, proxy):
    upstreams = await keepers(OBJECT, 3)
    running = await proxy(config_for(*(upstream.url for upstream in upstreams)))
    for target in (b"/v1/responses/a", b"/v1/files/b/content", b"/v1/threads/c/runs/d"):
        assert [await served_by(running, get(target)) for _ in range(3)] == [b"up0"] * 3


async def test_first_of_the_pool_is_the_first_that_has_a_weight(keepers, proxy):
    upstreams = await keepers(OBJECT)
    text = config_for(*(upstream.url for upstream in upstreams)).replace(
        "{upstream: up0}", "{upstream: up0, weight: 0}"
    )
    assert await served_by(await proxy(text), get(b"/v1/responses/a")) == b"up1"


async def test_what_refers_to_nothing_is_spread_as_ever(keepers, proxy):
    upstreams = await keepers(OBJECT)
    running = await proxy(config_for(*(upstream.url for upstream in upstreams)))
    await create(running, RESPONSE)
    for request in (RESPONSE, get(b"/v1/files"), post(b'{"model":"m","user_id":"u"}')):
        assert {await served_by(running, request) for _ in range(4)} == {b"up0", b"up1"}


@pytest.mark.parametrize("target", [b"/v1/threads/runs", b"/v1/responses/compact", b"/v1/responses/input_tokens"])
async def test_operations_whose_name_stands_where_an_id_would_are_spread(target, keepers, proxy):
    upstreams = await keepers(OBJECT)
    running = await proxy(config_for(*(upstream.url for upstream in upstreams)))
    assert {await served_by(running, post(b"{}", target=target)) for _ in range(4)} == {b"up0", b"up1"}


NOTHING_MADE = {
    "error": (RESPONSE, made(b'{"id":"%b"}', status=b"400 Bad")),
    "server error": (RESPONSE, made(b'{"id":"%b"}', status=b"500 Oops")),
    "redirect": (RESPONSE, made(b'{"id":"%b"}', status=b"302 Found")),
    "chat that is not stored": (post(b'{"model":"m"}'), OBJECT),
    "embeddings": (post(b"{}", target=b"/v1/embeddings"), OBJECT),
    "id beyond what is looked at": (RESPONSE, made(b'{"x":"' + b"x" * 70_000 + b'","id":"%b"}')),
}


@pytest.mark.parametrize("case", NOTHING_MADE)
async def test_what_makes_nothing_is_not_remembered(case, keepers, proxy):
    request, answer = NOTHING_MADE[case]
    upstreams = await keepers(answer)
    running = await proxy(config_for(*(upstream.url for upstream in upstreams)))
    for _ in range(2):
        await ask(running.port, request)
    assert not remembered(running)


# --- ids that come of other calls -------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["output_file_id", "error_file_id"])
async def test_files_that_a_batch_made_come_from_its_maker(field, keepers, proxy):
    upstreams = await keepers(OBJECT)
    running = await proxy(config_for(*(upstream.url for upstream in upstreams)))
    batches = await create(running, post(BATCH, target=b"/v1/batches"))
    for upstream in upstreams:
        upstream.script.answer = lambda new, field=field: whole(
            b'{"id":"batch","object":"batch","status":"completed","%b":"file-%b"}' % (field.encode(), new)
        )
    for batch in batches:
        answer = await ask(running.port, get(b"/v1/batches/" + batch))
        made_file = json.loads(answer.payload)[field].encode()
        assert await served_by(running, get(b"/v1/files/%b/content" % made_file)) == maker_of(batch)


async def test_file_of_an_upload_comes_from_its_maker(keepers, proxy):
    upstreams = await keepers(OBJECT)
    running = await proxy(config_for(*(upstream.url for upstream in upstreams)))
    uploads = await create(running, post(b"{}", target=b"/v1/uploads"))
    for upstream in upstreams:
        upstream.script.answer = made(b'{"id":"upload","object":"upload","file":{"id":"file-%b","object":"file"}}')
    for upload in uploads:
        answer = await ask(running.port, post(b'{"part_ids":["x"]}', target=b"/v1/uploads/%b/complete" % upload))
        made_file = json.loads(answer.payload)["file"]["id"].encode()
        assert await served_by(running, get(b"/v1/files/" + made_file)) == maker_of(upload)


async def test_what_an_answer_repeats_stays_with_who_made_it(keepers, proxy):
    upstreams = await keepers(OBJECT)
    running = await proxy(config_for(*(upstream.url for upstream in upstreams)))
    ids = await create(running, RESPONSE)
    for one in ids:
        for upstream in upstreams:
            upstream.script.answer = lambda new, one=one: whole(
                b'{"id":"%b","metadata":{"id":"%b","file_id":"%b"}}' % (new, one, one)
            )
        answers = {
            await served_by(running, post(b'{"metadata":{"id":"%b"}}' % one, target=b"/v1/responses")) for _ in "12"
        }
        assert answers == {b"up0", b"up1"}
    for one in ids:
        assert await served_by(running, get(b"/v1/responses/" + one)) == maker_of(one)


# --- however the answer comes -----------------------------------------------------------------------------------------


def in_chunks(*pieces, fields=b""):
    head = b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n" % fields
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b"")).replace(b"0\r\n\r\n", b"")


def chunked_answer(*pieces, fields=b""):
    return in_chunks(*(piece for piece in pieces if piece), fields=fields) + b"0\r\n\r\n"


def body_of(new):
    return b'{"object":"response","id":"%b","output":[]}' % new


def events_of(new):
    begun = b'event: response.created\ndata: {"type":"response.created","response":{"id":"%b"}}\n\n' % new
    return begun, b'event: response.completed\ndata: {"type":"response.completed"}\n\n'


GZIP = b"Content-Encoding: gzip\r\n"
STREAM = b"Content-Type: text/event-stream\r\n"
WAYS = {
    "plain": lambda new: whole(body_of(new)),
    "chunked": lambda new: chunked_answer(body_of(new)),
    "id over two chunks": lambda new: chunked_answer(body_of(new)[:30], body_of(new)[30:]),
    "id over chunks of one byte": lambda new: chunked_answer(*(b"%c" % byte for byte in body_of(new))),
    "in writes of one byte": lambda new: [b"%c" % byte for byte in whole(body_of(new))],
    "until close": lambda new: b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body_of(new),
    "HTTP/1.0": lambda new: b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n" + body_of(new),
    "created": lambda new: whole(body_of(new), status=b"201 Created"),
    "behind an interim answer": lambda new: b"HTTP/1.1 103 Hints\r\nLink: <x>\r\n\r\n" + whole(body_of(new)),
    "stream": lambda new: chunked_answer(*events_of(new), fields=STREAM),
    "stream in writes": lambda new: [*_split(chunked_answer(*events_of(new), fields=STREAM), 7)],
    "gzip": lambda new: whole(gzip.compress(body_of(new)), fields=GZIP),
    "gzip in chunks": lambda new: chunked_answer(*_split(gzip.compress(body_of(new)), 5), fields=GZIP),
    "gzip in writes": lambda new: [*_split(whole(gzip.compress(body_of(new)), fields=GZIP), 9)],
    "gzip of a stream": lambda new: chunked_answer(gzip.compress(b"".join(events_of(new))), fields=GZIP + STREAM),
    "behind more than a read": lambda new: whole(b'{"x":"' + b"x" * 9000 + b'","id":"%b"}' % new),
    "before megabytes": lambda new: whole(b'{"id":"%b","x":"' % new + b"x" * 3_000_000 + b'"}'),
    "long": lambda new: whole(b'{"id":"%b_%b"}' % (new, b"x" * 200)),
}


def _split(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("way", WAYS)
async def test_id_is_read_however_the_answer_is_framed(way, keepers, proxy):
    upstreams = await keepers(WAYS[way])
    running = await proxy(config_for(*(upstream.url for upstream in upstreams)))
    for one in await create(running, RESPONSE):
        assert await served_by(running, get(b"/v1/responses/" + one)) == maker_of(one)


@pytest.mark.parametrize("way", WAYS)
async def test_and_the_caller_gets_every_byte_of_it(way, keepers, proxy):
    (upstream,) = await keepers(WAYS[way], 1)
    running = await proxy(config_for(upstream.url))
    sent = WAYS[way](b"up0_0")
    sent = b"".join(sent) if isinstance(sent, list) else sent
    answer = await ask(running.port, RESPONSE)
    assert answer.whole
    body = sent.rpartition(b"\r\n\r\n")[2] if b"chunked" not in sent[:300] else sent.partition(b"\r\n\r\n")[2]
    assert body in (answer.body, answer.payload)


@pytest.mark.parametrize("kind", ["object", "stream", "run"])
async def test_answer_may_be_cut_anywhere(kind, keepers, proxy):
    def answer(new):
        if kind == "stream":
            return chunked_answer(*events_of(new), fields=STREAM)
        return whole(b'{"id":"a_%b","object":"run","thread_id":"b_%b"}' % (new, new) if kind == "run" else body_of(new))

    cuts = range(1, len(answer(b"up0_0")))

    def cut(new):
        at, data = cuts[int(new.partition(b"_")[2])], answer(new)
        return [data[:at], data[at:]]

    (upstream,) = await keepers(cut, 1)
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    for number, at in enumerate(cuts):
        await caller.send(RESPONSE if kind != "run" else post(b"{}", target=b"/v1/threads/runs"))
        assert (await caller.answer()).whole
        new = b"up0_%d" % number
        for one in [b"a_" + new, b"b_" + new] if kind == "run" else [new]:
            assert one in remembered(running), f"cut at {at}"


async def test_id_is_known_before_the_stream_ends(scripted, proxy):
    async def streaming(talk):
        while True:
            request = await talk.request()
            if request.line.startswith(b"GET"):
                await talk.send(whole(b"{}"))
                continue
            await talk.send(in_chunks(events_of(b"resp_1")[0], fields=STREAM))
            await talk.gone()

    first, second = await scripted(answering(whole(b"{}"))), await scripted(streaming)
    running = await proxy(config_for(first.url, second.url))
    await ask(running.port, post())
    caller = await RawCaller.connect(running.port)
    await caller.send(RESPONSE)
    await caller.read_until(b"resp_1")
    assert await served_by(running, get(b"/v1/responses/resp_1")) == b"up1"
    caller.close()
    await running.until(lambda: running.inflight() == 0)


ENCODINGS = {
    b"gzip, deflate, br, zstd": [b"identity"],
    b"br": [b"identity"],
    b"zstd, br": [b"identity"],
    b"identity": [b"identity"],
    b"gzip;q=0, br": [b"identity"],
}


@pytest.mark.parametrize("accepted", ENCODINGS)
@pytest.mark.parametrize("target", [b"/v1/responses", b"/v1/chat/completions"])
async def test_upstream_is_asked_for_what_can_be_looked_into(accepted, target, scripted, proxy):
    upstream = await scripted(answering(whole(b'{"id":"resp_1"}')))
    running = await proxy(config_for(upstream.url))
    fields = b"Accept-Encoding: %b\r\n" % accepted
    await ask(running.port, post(b'{"store":true}', target=target, fields=fields))
    assert [value for name, value in upstream.requests[0].fields if name == b"Accept-Encoding"] == ENCODINGS[accepted]


async def test_other_calls_accept_what_their_caller_does(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    await ask(running.port, get(b"/v1/files", fields=b"Accept-Encoding: br\r\n"))
    assert upstream.requests[0].field(b"accept-encoding") == b"br"


# --- keys, pools and routes -------------------------------------------------------------------------------------------


async def test_calls_go_back_with_the_key_that_made_it(keepers, proxy):
    (upstream,) = await keepers(OBJECT, 1)
    running = await proxy(
        f"""
clients: [{{name: tester, key: client-key}}]
upstreams:
  up0:
    base_url: '{upstream.url}'
    keys: [{{name: a, value: key-a}}, {{name: b, value: key-b}}, {{name: c, value: key-c}}]
pools: {{chat: {{members: [{{upstream: up0}}]}}}}
routes: [{{prefix: /v1, pool: chat}}]
"""
    )
    for _ in range(6):
        await ask(running.port, RESPONSE)
    made_with = [request.field(b"authorization") for request in upstream.requests]
    assert len(set(made_with)) == 3
    for number in (5, 0, 3, 3, 1, 4, 2):
        await ask(running.port, get(b"/v1/responses/up0_%d" % number))
        assert upstream.requests[-1].field(b"authorization") == made_with[number]


async def test_members_with_one_key_each_are_told_apart(keepers, proxy):
    (upstream,) = await keepers(OBJECT, 1)
    running = await proxy(
        f"""
clients: [{{name: tester, key: client-key}}]
upstreams: {{up0: {{base_url: '{upstream.url}', keys: [{{name: a, value: key-a}}, {{name: b, value: key-b}}]}}}}
pools: {{chat: {{members: [{{upstream: up0, key: b, weight: 2}}, {{upstream: up0, key: a}}]}}}}
routes: [{{prefix: /v1, pool: chat}}]
"""
    )
    for _ in range(6):
        await ask(running.port, RESPONSE)
    made_with = [request.field(b"authorization") for request in upstream.requests]
    assert sorted(made_with) == [b"Bearer key-a"] * 2 + [b"Bearer key-b"] * 4
    for number in range(6):
        for _ in range(2):
            await ask(running.port, get(b"/v1/responses/up0_%d" % number))
            assert upstream.requests[-1].field(b"authorization") == made_with[number]


async def test_callers_own_keys_go_back_to_the_upstream_that_took_them(keepers, proxy):
    upstreams = await keepers(OBJECT)
    running = await proxy(config_for(*(upstream.url for upstream in upstreams), keys=False, clients=False))
    for one in await create(running, RESPONSE):
        assert await served_by(running, get(b"/v1/responses/" + one)) == maker_of(one)


async def test_way_back_leads_by_the_route_that_has_the_maker(keepers, proxy):
    upstreams = await keepers(OBJECT, 3)
    urls = "\n".join(f"  up{number}: {{base_url: '{upstream.url}'}}" for number, upstream in enumerate(upstreams))
    running = await proxy(
        f"""
clients: [{{name: tester, key: client-key}}]
upstreams:
{urls}
pools: {{a: {{members: [{{upstream: up0}}]}}, b: {{members: [{{upstream: up1}}]}}, c: {{members: [{{upstream: up2}}]}}}}
routes: [{{prefix: /v1, model: 'a-*', pool: a}}, {{prefix: /v1, model: 'b-*', pool: b}}, {{prefix: /v1, pool: c}}]
"""
    )
    for model, one in ((b"a-1", b"up0_0"), (b"b-1", b"up1_0"), (b"x", b"up2_0")):
        created = await served_by(running, post(b'{"model":"%b"}' % model, target=b"/v1/responses"))
        assert created == await served_by(running, get(b"/v1/responses/" + one)) == maker_of(one)
        follow_up = post(b'{"model":"%b","previous_response_id":"%b"}' % (model, one), target=b"/v1/responses")
        assert await served_by(running, follow_up) == maker_of(one)
        without_model = post(b'{"previous_response_id":"%b"}' % one, target=b"/v1/responses")
        assert await served_by(running, without_model) == maker_of(one)


async def test_model_leads_where_the_maker_does_not_serve_it(keepers, proxy):
    upstreams = await keepers(OBJECT)
    running = await proxy(
        f"""
clients: [{{name: tester, key: client-key}}]
upstreams: {{up0: {{base_url: '{upstreams[0].url}'}}, up1: {{base_url: '{upstreams[1].url}'}}}}
pools: {{a: {{members: [{{upstream: up0}}]}}, b: {{members: [{{upstream: up1}}]}}}}
routes: [{{prefix: /v1, model: 'a-*', pool: a}}, {{prefix: /v1, model: 'b-*', pool: b}}]
"""
    )
    await ask(running.port, post(b'{"model":"a-1"}', target=b"/v1/responses"))
    call = post(b'{"model":"b-1","previous_response_id":"up0_0"}', target=b"/v1/responses")
    assert await served_by(running, call) == b"up1"


async def test_maker_of_another_routes_pool_is_not_asked(keepers, proxy):
    upstreams = await keepers(OBJECT)
    running = await proxy(
        f"""
clients: [{{name: tester, key: client-key}}]
upstreams: {{up0: {{base_url: '{upstreams[0].url}'}}, up1: {{base_url: '{upstreams[1].url}'}}}}
pools: {{a: {{members: [{{upstream: up0}}]}}, b: {{members: [{{upstream: up1}}]}}}}
routes: [{{prefix: /a, pool: a}}, {{prefix: /b, pool: b}}]
"""
    )
    assert await served_by(running, post(b"{}", target=b"/a/responses")) == b"up0"
    assert await served_by(running, get(b"/a/responses/up0_0")) == b"up0"
    assert await served_by(running, get(b"/b/responses/up0_0")) == b"up1"


async def test_model_is_replaced_as_the_way_back_has_it(keepers, proxy):
    upstreams = await keepers(OBJECT)
    running = await proxy(
        f"""
clients: [{{name: tester, key: client-key}}]
upstreams: {{up0: {{base_url: '{upstreams[0].url}'}}, up1: {{base_url: '{upstreams[1].url}'}}}}
pools: {{a: {{members: [{{upstream: up0, model: east}}, {{upstream: up1, model: west}}]}}}}
routes: [{{prefix: /v1, pool: a}}]
"""
    )
    for one in await create(running, RESPONSE):
        call = post(b'{"model":"m","previous_response_id":"%b"}' % one, target=b"/v1/responses")
        assert await served_by(running, call) == maker_of(one)
        upstream = upstreams[int(maker_of(one)[2:])]
        assert json.loads(upstream.requests[-1].body)["model"] == ("east" if upstream is upstreams[0] else "west")


async def test_prefix_that_is_called_like_a_collection_is_no_id(keepers, proxy):
    upstreams = await keepers(OBJECT)
    text = config_for(*(upstream.url for upstream in upstreams)).replace("prefix: /v1", "prefix: /batches")
    running = await proxy(text)
    call = post(target=b"/batches/chat/completions")
    assert {await served_by(running, call) for _ in range(4)} == {b"up0", b"up1"}
    call = post(target=b"/batches/v1/chat/completions")
    assert {await served_by(running, call) for _ in range(4)} == {b"up0", b"up1"}


# --- for how long -----------------------------------------------------------------------------------------------------

TOP = "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\n"


async def test_reload_keeps_what_was_made(keepers, proxy, tmp_path):
    upstreams = await keepers(OBJECT)
    urls = [upstream.url for upstream in upstreams]
    file = tmp_path / "serinus.yaml"
    running = await proxy(TOP + config_for(*urls), path=file)
    ids = await create(running, RESPONSE)
    file.write_text(TOP + config_for(*urls, route="buffer: 2MiB"))
    await running.serinus.reloader.reload()
    for one in ids:
        assert await served_by(running, get(b"/v1/responses/" + one)) == maker_of(one)


async def test_reload_while_it_is_made(scripted, proxy, tmp_path):
    go_on = asyncio.Event()

    async def script(talk):
        await talk.request()
        await talk.send(b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"id"')
        await go_on.wait()
        await talk.send(b':"resp_1"}')
        await answering(whole(b"{}"))(talk)

    other, upstream = await scripted(answering(whole(b"{}"))), await scripted(script)
    file = tmp_path / "serinus.yaml"
    running = await proxy(TOP + config_for(other.url, upstream.url), path=file)
    await ask(running.port, post())
    caller = await RawCaller.connect(running.port)
    await caller.send(RESPONSE)
    await caller.read_until(b'"id"')
    file.write_text(TOP + config_for(other.url, upstream.url, route="buffer: 2MiB"))
    await running.serinus.reloader.reload()
    go_on.set()
    await caller.read_until(b"resp_1")
    assert await served_by(running, get(b"/v1/responses/resp_1")) == b"up1"


async def test_without_its_maker_the_first_is_asked(keepers, proxy, tmp_path):
    upstreams = await keepers(OBJECT, 3)
    urls = [upstream.url for upstream in upstreams]
    file = tmp_path / "serinus.yaml"
    running = await proxy(TOP + config_for(*urls), path=file)
    ids = await create(running, RESPONSE, 3)
    file.write_text(TOP + config_for(*urls).replace(", {upstream: up2}", ""))
    await running.serinus.reloader.reload()
    assert [await served_by(running, get(b"/v1/responses/" + one)) for one in ids] == [b"up0", b"up1", b"up0"]


async def test_without_its_key_another_is_used(keepers, proxy, tmp_path):
    (upstream,) = await keepers(OBJECT, 1)
    file = tmp_path / "serinus.yaml"
    running = await proxy(TOP + config_for(upstream.url), path=file)
    await ask(running.port, RESPONSE)
    file.write_text(
        TOP + config_for(upstream.url).replace("name: main, value: upstream-key-0", "name: b, value: key-b")
    )
    await running.serinus.reloader.reload()
    assert await served_by(running, get(b"/v1/responses/up0_0")) == b"up0"
    assert upstream.requests[-1].field(b"authorization") == b"Bearer key-b"


async def test_is_forgotten_when_its_time_is_over(keepers, proxy):
    upstreams = await keepers(OBJECT)
    running = await proxy(config_for(*(upstream.url for upstream in upstreams)))
    one = next(one for one in await create(running, RESPONSE) if maker_of(one) == b"up1")
    running.pass_time(KEPT_S - 60)
    assert await served_by(running, get(b"/v1/responses/" + one)) == b"up1"
    running.pass_time(120)
    assert await served_by(running, get(b"/v1/responses/" + one)) == b"up0"


async def test_memory_is_bounded(keepers, proxy, monkeypatch):
    monkeypatch.setattr(module, "MAX_IDS", 3)
    upstreams = await keepers(OBJECT)
    running = await proxy(config_for(*(upstream.url for upstream in upstreams)))
    await create(running, RESPONSE, 8)
    assert list(remembered(running)) == [b"up1_2", b"up0_3", b"up1_3"]


async def test_maker_that_is_down_is_asked_all_the_same(keepers, proxy):
    upstreams = await keepers(OBJECT)
    running = await proxy(config_for(*(upstream.url for upstream in upstreams)))
    one = next(one for one in await create(running, RESPONSE) if maker_of(one) == b"up1")
    await upstreams[1].stop()
    answer = await ask(running.port, get(b"/v1/responses/" + one))
    assert (answer.status, answer.field(b"x-serinus-upstream")) == (503, b"up1")
