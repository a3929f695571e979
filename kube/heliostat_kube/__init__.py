"""Kubernetes over its HTTP API: a thin client and informers, shared by router and operator."""
