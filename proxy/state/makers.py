"""Who made what callers refer to by an id: calls on it must go back to that upstream, with a key of that account."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MAX_IDS = 50_000  # some 15 MB; the one not asked for longest goes first
KEPT_S = 30 * 86400.0  # OpenAI keeps a response for 30 days


@dataclass(frozen=True, slots=True)
class Maker:
    """By name, for a reload may replace the records."""

    upstream: str
    key: str | None
    target: str = ""  # its address, where each of a name is one: replicas keep what they made for themselves


class Makers:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.made: OrderedDict[bytes, tuple[Maker, float]] = OrderedDict()

    def remember(self, made: bytes, maker: Maker) -> None:
        now_s = self._clock()
        known, until_s = self.made.get(made, (maker, 0.0))
        if known != maker and until_s > now_s:
            return  # an answer may repeat what another upstream made
        self.made[made] = (maker, now_s + KEPT_S)
        self.made.move_to_end(made)
        if len(self.made) > MAX_IDS:
            self.made.popitem(last=False)

    def find(self, made: bytes) -> Maker | None:
        """Who made it, if that is remembered."""
        maker, until_s = self.made.get(made, (None, 0.0))
        if maker is None:
            return None
        if until_s <= self._clock():
            del self.made[made]
            return None
        self.made.move_to_end(made)
        return maker
