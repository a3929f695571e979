"""What `heliostat sim` adds to the simulator: options, and what a person sees of a sweep."""
