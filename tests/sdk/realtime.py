"""An upstream that speaks a small part of OpenAI's realtime API, and keeps who came and what was said."""

import contextlib
import json
from collections.abc import Sequence

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

WORDS = ("Bells", " and", " rain")
REFUSAL = {"error": {"type": "invalid_request_error", "code": "region_not_supported", "message": "Not from there."}}


def said(kind: str, **fields: object) -> str:
    return json.dumps({"type": kind, "event_id": "event_1", **fields})


def answer() -> list[str]:
    """What follows a `response.create`."""
    ids = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
    deltas = [said("response.output_text.delta", delta=word, **ids) for word in WORDS]
    done = {"id": "resp_1", "object": "realtime.response", "status": "completed", "output": []}
    return [*deltas, said("response.done", response=done)]


def agreed(_: ServerConnection, offered: Sequence[str]) -> str | None:
    """Browsers end a connection whose server takes none of their subprotocols; others offer none."""
    return "realtime" if "realtime" in offered else None


class RealtimeUpstream:
    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.sessions: list[ServerConnection] = []
        self.received: list[dict[str, object]] = []
        self.refuses = False

    async def __aenter__(self) -> "RealtimeUpstream":
        options = {"process_request": self._asked, "select_subprotocol": agreed, "max_size": None}
        self._server: Server = await serve(self._talk, "127.0.0.1", 0, **options)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    def _asked(self, session: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        if not self.refuses:
            return None
        refusal = session.respond(403, json.dumps(REFUSAL))
        del refusal.headers["Content-Type"]
        refusal.headers["Content-Type"] = "application/json"
        return refusal

    async def _talk(self, session: ServerConnection) -> None:
        self.sessions.append(session)
        with contextlib.suppress(ConnectionClosed):
            await session.send(said("session.created", session={"type": "realtime", "model": "gpt-realtime"}))
            async for message in session:
                await self._reply(session, json.loads(message))

    async def _reply(self, session: ServerConnection, event: dict[str, object]) -> None:
        self.received.append(event)
        match event["type"]:
            case "response.create":
                for message in answer():
                    await session.send(message)
            case "conversation.item.create":
                await session.send(said("conversation.item.created", item=event["item"], previous_item_id=None))
