"""Published policies, as balancers of the simulated world: what Heliostat is compared with.

Each module's docstring states its source's rule, and what was assumed where the source is silent.
What every policy gets beyond its source, so that faults compare fairly: a request that an engine
refused is placed anew, and an engine that refused is left alone until it answers a probe.
"""
