"""What serving a request somewhere costs all requests together, in seconds.

    cost = network + wait + u / P  +  n (u / P + late + 2 o g)  +  spread  +  egress

The first three are the request's own time to first token: u uncached prompt tokens at P tokens a
second. The rest is the burden on the n requests that are in flight there: they stand still while
the prompt is computed, and each of the o expected output tokens takes g longer, for them and, n
times, for the request itself. A first token later than the pool's objective counts as if all of
them waited for it. P and g are measured, o is a running mean, the objective is the user's: nothing
is left to tune to a workload. Spread is what the only, crowded holder of a prefix pays,
and egress what the way to another region costs, at the price of an engine's time.
"""


def burden_seconds(
    load: float, work_seconds: float, late_seconds: float, decode_seconds: float
) -> float:
    """The burden on so many requests; `decode_seconds` is what each costs and is cost, 2 o g."""
    return load * (work_seconds + max(0.0, late_seconds) + decode_seconds)
