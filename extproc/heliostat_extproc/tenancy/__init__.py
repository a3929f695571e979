"""Tenants: who may ask, for how much, and where it may be served."""
