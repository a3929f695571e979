"""Regions of processes on one machine, far apart: real gateways, a slow network, what breaks."""
