"""Plays the kubelet: pods the real scheduler placed run as local processes, without containers.

Each pod has a network namespace, each container its own root, mounts and processes; status,
probes, restarts and the order of ending are a kubelet's.
"""
