"""Forms: what an upload sends beside its file."""

from dataclasses import dataclass

from aiohttp import BodyPartReader, web

from proxy.simulation.errors import ApiError


@dataclass(frozen=True, slots=True)
class Upload:
    filename: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Form:
    fields: dict[str, str]
    uploads: dict[str, Upload]


async def read_form(request: web.Request) -> Form:
    if request.content_type != "multipart/form-data":
        raise ApiError(400, "Expected a body of multipart/form-data")
    form = Form({}, {})
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name is None:
                raise ApiError(400, "A part of the form has no name, or parts of its own")
            content = bytes(await part.read())
            if part.filename is None:
                form.fields[part.name] = content.decode(errors="replace")
            else:
                form.uploads[part.name] = Upload(part.filename, content)
    except ValueError as error:
        raise ApiError(400, f"The form cannot be read: {error}") from None
    return form
