"""OpenAI's files: kept byte for byte, in the memory of the upstream that took them."""

from typing import Any

from aiohttp import web

from proxy.simulation.call import Call
from proxy.simulation.errors import ApiError
from proxy.simulation.form import read_form
from proxy.simulation.memory import StoredFile


async def create_file(call: Call) -> web.StreamResponse:
    form = await read_form(call.request)
    upload = form.uploads.get("file")
    if upload is None:
        raise ApiError(400, "file: Field required", param="file")
    if "purpose" not in form.fields:
        raise ApiError(400, "purpose: Field required", param="purpose")
    stored = StoredFile(upload.filename, form.fields["purpose"], upload.content, call.now_s)
    file_id = call.new_id("file-")
    call.memory.files.put(file_id, stored)
    return await call.answer(_shown(file_id, stored))


async def list_files(call: Call) -> web.StreamResponse:
    data = [_shown(file_id, stored) for file_id, stored in call.memory.files.newest_first()]
    return await call.answer(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": False,
        }
    )


async def get_file(call: Call) -> web.StreamResponse:
    file_id, stored = _find(call)
    return await call.answer(_shown(file_id, stored))


async def get_file_content(call: Call) -> web.StreamResponse:
    _, stored = _find(call)
    return web.Response(body=stored.content, content_type="application/octet-stream")


async def delete_file(call: Call) -> web.StreamResponse:
    file_id, _ = _find(call)
    call.memory.files.pop(file_id)
    return await call.answer({"id": file_id, "object": "file", "deleted": True})


def _find(call: Call) -> tuple[str, StoredFile]:
    file_id = call.request.match_info["id"]
    stored = call.memory.files.get(file_id)
    if stored is None:
        raise ApiError(404, f"No such File object: {file_id}", param="id")
    return file_id, stored


def _shown(file_id: str, stored: StoredFile) -> dict[str, Any]:
    return {
        "id": file_id,
        "object": "file",
        "bytes": len(stored.content),
        "created_at": stored.created_s,
        "filename": stored.filename,
        "purpose": stored.purpose,
        "status": "processed",
        "status_details": None,
        "expires_at": None,
    }
