"""What can go wrong with the cluster itself, told so that a developer knows what to do."""


class ClusterError(RuntimeError):
    """The cluster cannot be built, started or used; the text says why and what to do."""
