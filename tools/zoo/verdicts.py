"""How a check ends that does not pass."""


class SkippedError(Exception):
    """A check that cannot be done here, and why."""


class FaultError(Exception):
    """What is wrong with a bundle."""
