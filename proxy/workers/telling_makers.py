"""Who made what, as a worker knows it: what it learns, the others are to know as well."""

from collections.abc import Callable

from proxy.state.makers import Maker, Makers


class TellingMakers(Makers):
    """Tells of what was made here."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.on_made: Callable[[bytes, Maker], None] = lambda made, maker: None

    def remember(self, made: bytes, maker: Maker) -> None:
        if made not in self.made:
            self.on_made(made, maker)
        super().remember(made, maker)

    def heard(self, made: bytes, maker: Maker) -> None:
        super().remember(made, maker)
