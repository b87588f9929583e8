"""A clock for searches that is the same on every machine."""


class Clock:
    """Goes on by `tick` seconds whenever it is read."""

    def __init__(self) -> None:
        self.now, self.tick = 0.0, 0.01

    def __call__(self) -> float:
        self.now += self.tick
        assert self.now < 100, "the search doesn't keep its time"
        return self.now
