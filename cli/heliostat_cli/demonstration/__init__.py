"""The parts of `heliostat demo`: what runs, what it is asked to do, and what a person sees."""
