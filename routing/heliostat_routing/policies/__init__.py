"""The routing policies: each picks one endpoint for one request, behind the same interface."""
