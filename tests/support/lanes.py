"""What a caller's connection is doing, in whichever lane it is."""

from proxy.dataplane.aiohttp_connection import AiohttpConnection
from proxy.dataplane.fast_lane import FastConnection
from proxy.dataplane.phases import Phase
from tests.support.running import RunningProxy

Connection = FastConnection | AiohttpConnection


def the_connection(running: RunningProxy) -> Connection:
    """The only one of the proxy."""
    (connection,) = running.serinus.data_plane.callers.open
    assert isinstance(connection, Connection)
    return connection


def is_idle(running: RunningProxy) -> bool:
    """Is there one connection, between two requests?"""
    return len(running.serinus.data_plane.callers.open) == 1 and _is(the_connection(running), Phase.IDLE)


def has_begun_a_head(running: RunningProxy) -> bool:
    """Has a part of a head arrived on the only connection, and is the rest waited for?"""
    return _is(the_connection(running), Phase.HEAD)


def waits_for_body(running: RunningProxy) -> bool:
    """Is there nothing left to do but to wait for more of a body?"""
    connection = the_connection(running)
    if isinstance(connection, AiohttpConnection) and connection._current_request is not None:
        return _is(connection, Phase.BODY) and not connection._current_request.content._size
    return _is(connection, Phase.BODY)


def holds_more(running: RunningProxy) -> bool:
    """Has something come behind the request that is being answered?"""
    connection = the_connection(running)
    if isinstance(connection, AiohttpConnection):
        return connection._early_bytes
    return connection.exchange is not None and bool(connection._early)


def arrived_bytes(running: RunningProxy) -> int:
    """Of the request that has begun on the only connection."""
    connection = the_connection(running)
    if isinstance(connection, AiohttpConnection):
        return connection._arrived_bytes
    return sum(map(len, connection._body)) or len(connection._early)


def _is(connection: Connection, phase: Phase) -> bool:
    return (connection._phase if isinstance(connection, AiohttpConnection) else _phase(connection)) is phase


def _phase(connection: FastConnection) -> Phase:
    if connection.exchange is not None or connection._resuming:
        return Phase.EXCHANGE
    if connection._request is not None:
        return Phase.BODY
    return Phase.HEAD if connection._early else Phase.IDLE
