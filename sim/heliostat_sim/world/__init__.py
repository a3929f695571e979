"""The world in discrete events: regions, engines, networks, gateways and clients on virtual time.

The gateways run the production core (`heliostat_routing`) or a policy to compare with
(`heliostat_sim.policies`); the engines are `heliostat_sim.engine`. Everything is deterministic: the
same scenario, policy and seed give the same records.
"""
