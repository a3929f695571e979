"""The engine model served in real time over vLLM's HTTP interface.

It lets a router, a gateway or a load tool run against engines that behave like vLLM on a GPU
(queueing, batching, prefix caching, preemption) on a machine that has none.
"""
