"""Who is calling."""

from proxy.model.errors import Unauthenticated
from proxy.policy.fields import Pair, RequestFields
from proxy.state.snapshot import Client, ClientKeys, Snapshot

# A caller that brings a provider's credential of its own says who it is in the first of these.
_ORDER = {b"x-serinus-key": 0, b"authorization": 1, b"x-api-key": 2, b"api-key": 3, b"sec-websocket-protocol": 4}


def identify(snapshot: Snapshot, fields: RequestFields) -> tuple[Client | None, list[Pair]]:
    """The client whose key the request carries (None where no clients are configured), and the other credentials.

    No field with a client's key is among the others: some callers send theirs in two, and no provider is to see it.
    Raises Unauthenticated.
    """
    credentials, clients = fields.credentials, snapshot.clients
    if clients is None:
        return None, credentials
    if len(credentials) > 1:
        credentials = sorted(credentials, key=lambda pair: _ORDER[pair[0]])
    caller, others = None, []
    for pair in credentials:
        key = _key_in(pair)
        client = clients.find(key) if key else None  # no key is nobody's, even where an unset variable's hash is listed
        if client is None:
            if not _names_a_client(clients, pair):
                others.append(pair)
        else:
            caller = caller or client
    if caller is not None:
        return caller, others
    if credentials:
        raise Unauthenticated("Incorrect API key provided: no client of this proxy has it.")
    raise Unauthenticated("No API key provided: send yours as `Authorization: Bearer KEY` or `x-api-key: KEY`.")


def keys_in(fields: RequestFields) -> list[bytes]:
    """All that may be a client's key."""
    return [key for pair in fields.credentials if (key := _key_in(pair))]


def _names_a_client(clients: ClientKeys, pair: Pair) -> bool:
    """Is a client's key in this field in a form that we do not accept? It must not go further all the same."""
    value = pair[1]
    forms = (value.strip(), *value.split(None, 1)[1:])
    return any(clients.find(form.strip()) is not None for form in forms if form)


def _key_in(pair: Pair) -> bytes:
    name, value = pair
    if name != b"authorization":
        return value
    return value[7:].strip() if value[:7].lower() == b"bearer " else b""
