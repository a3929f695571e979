"""What the benches of the gateway share: its processes, the floor beside it, engines and load."""
