"""The proxy's side of the router process: its configuration, its updates and what it reports."""
