"""What a caller's connection in the aiohttp lane is about; each phase has a time limit of its own."""

from enum import Enum, auto


class Phase(Enum):
    IDLE = auto()  # between two requests
    HEAD = auto()  # a request has begun to arrive
    BODY = auto()  # its handler waits for bytes of its body
    EXCHANGE = auto()  # nothing is expected of the caller
    UNREAD = auto()  # a request waits until the answers before it are taken
    ENDING = auto()  # the last answer is written, and what still arrives is thrown away

    __hash__ = object.__hash__


IDLE, HEAD, BODY, EXCHANGE, UNREAD, ENDING = Phase  # an attribute of an Enum costs 70 ns in Python 3.11
