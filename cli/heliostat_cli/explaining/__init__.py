"""The parts of `heliostat explain`: asking routers, and showing what they tell."""
