"""Regions that serve each other, and routers that share one: their state, and who they are."""
