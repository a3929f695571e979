"""The operator: keeps each cluster's engines as its InferencePools declare them."""
