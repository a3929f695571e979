"""What the harness cannot do."""


class HarnessError(RuntimeError):
    """The regions, or the network between them, could not be set up or asked."""
