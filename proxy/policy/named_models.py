"""Where a request's target names a model: in its path, as Azure's and Google's APIs do, or in its query.

For a client that is held to some models the path must say one thing to every reader: an upstream may decode it, drop
dot segments and parameters, or take a backslash for a slash, and would then serve a model that nobody checked.
"""

import re
from urllib.parse import parse_qsl, unquote

from proxy.model.errors import BadRequest

_NAMING_SEGMENT = re.compile(
    r"/(?:deployments|engines|model)/([^/]*)|/(?:tuned)?models/([^/:]*):|/([^/:]+):[a-z]+$", re.IGNORECASE
)
_RECORD = re.compile(r"/models/(.+?)/?$", re.IGNORECASE)
_LIST = re.compile(r"/models/*$", re.IGNORECASE)
_AMBIGUOUS = re.compile(r"//|/\.{1,2}(?:/|$)|[;\\%]|[^!-~]")


def check_unambiguous(target: bytes) -> None:
    """Raise BadRequest for a path that others may read in another way than it stands there."""
    path = target.partition(b"?")[0].decode("latin-1")
    if _AMBIGUOUS.search(unquote(path, "latin-1")) is not None:
        raise BadRequest("For this client the path must be plain: no //, dot segments, ';' or double encoding.")


def models_in_path(method: bytes, target: bytes) -> list[str]:
    """The models that a path names: `/deployments/NAME/…`, `/models/NAME:verb`, and `/models/NAME` itself.

    A call that is no POST has no verb: it is about the model's own record, whose name may have colons and slashes.
    """
    path = unquote(target.partition(b"?")[0].decode("latin-1"))
    if method != b"POST" and (record := _RECORD.search(path)) is not None:
        return [record[1]]
    return ["".join(names) for names in _NAMING_SEGMENT.findall(path)]


def models_in_query(target: bytes) -> list[str]:
    """The models that a query names, `?model=` as the Realtime API, `?deployment=` as Azure has it.

    Raises BadRequest where one of them stands there twice.
    """
    query = target.partition(b"?")[2].decode("latin-1").replace(";", "&")  # some take either for a separator
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        name = name.lower()
        if name in found:
            raise BadRequest("The query must name its model once.", param=name)
        if name in ("model", "deployment"):
            found[name] = value
    return list(found.values())


def is_model_list(target: bytes) -> bool:
    """Is this the path of the list of models, as some upstream may read it?"""
    return _LIST.search(unquote(target.partition(b"?")[0].decode("latin-1"))) is not None
