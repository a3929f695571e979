"""The parts of `heliostat status`: asking routers on their admin ports, and showing it."""
