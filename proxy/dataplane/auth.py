"""Who is calling."""

from hashlib import sha256

from proxy.model.errors import Unauthenticated
from proxy.policy.fields import Pair, RequestFields
from proxy.state.snapshot import Client, Snapshot

# A caller that brings a provider's credential of its own says who it is in the first of these.
_ORDER = {b"x-serinus-key": 0, b"authorization": 1, b"x-api-key": 2, b"api-key": 3}


def identify(snapshot: Snapshot, fields: RequestFields) -> tuple[Client | None, Pair | None]:
    """The client whose key the request carries, and the field that carried it: that one is never forwarded.

    A key is found by its whole SHA-256, so neither the lookup nor its timing says anything about a key that is nearly
    right. Returns (None, None) where no clients are configured. Raises Unauthenticated.
    """
    if not snapshot.clients:
        return None, None
    credentials = fields.credentials
    if len(credentials) > 1:
        credentials = sorted(credentials, key=lambda pair: _ORDER[pair[0]])
    for pair in credentials:
        client = snapshot.clients.get(sha256(_key_in(pair)).digest())
        if client is not None:
            return client, pair
    if credentials:
        raise Unauthenticated("Incorrect API key provided: no client of this proxy has it.")
    raise Unauthenticated("No API key provided: send yours as `Authorization: Bearer KEY` or `x-api-key: KEY`.")


def _key_in(pair: Pair) -> bytes:
    name, value = pair
    if name != b"authorization":
        return value
    return value[7:].strip() if value[:7].lower() == b"bearer " else b""
