"""Who is calling."""

from hashlib import sha256

from proxy.model.errors import Unauthenticated
from proxy.policy.fields import Pair, RequestFields
from proxy.state.snapshot import Client, Snapshot

# A caller that brings a provider's credential of its own says who it is in the first of these.
_ORDER = {b"x-serinus-key": 0, b"authorization": 1, b"x-api-key": 2, b"api-key": 3, b"sec-websocket-protocol": 4}


def identify(snapshot: Snapshot, fields: RequestFields) -> tuple[Client | None, list[Pair]]:
    """The client whose key the request carries (None where no clients are configured), and the other credentials.

    A key is found by its whole SHA-256, so neither the lookup nor its timing says anything about a key that is nearly
    right. No field with a client's key is among the others: some callers send theirs in two, and no provider is to see
    it. Raises Unauthenticated.
    """
    credentials = fields.credentials
    if not snapshot.clients:
        return None, credentials
    if len(credentials) > 1:
        credentials = sorted(credentials, key=lambda pair: _ORDER[pair[0]])
    caller, others = None, []
    for pair in credentials:
        client = snapshot.clients.get(_digest(pair))
        if client is None:
            if not _names_a_client(snapshot, pair):
                others.append(pair)
        else:
            caller = caller or client
    if caller is not None:
        return caller, others
    if credentials:
        raise Unauthenticated("Incorrect API key provided: no client of this proxy has it.")
    raise Unauthenticated("No API key provided: send yours as `Authorization: Bearer KEY` or `x-api-key: KEY`.")


def _names_a_client(snapshot: Snapshot, pair: Pair) -> bool:
    """Is a client's key in this field in a form that we do not accept? It must not go further all the same."""
    value = pair[1]
    forms = (value.strip(), *value.split(None, 1)[1:])
    return any(sha256(form.strip()).digest() in snapshot.clients for form in forms if form)


def _digest(pair: Pair) -> bytes:
    """Of the key in the field. No key has none, even where a client was listed with the hash of an unset variable."""
    key = _key_in(pair)
    return sha256(key).digest() if key else b""


def _key_in(pair: Pair) -> bytes:
    name, value = pair
    if name != b"authorization":
        return value
    return value[7:].strip() if value[:7].lower() == b"bearer " else b""
