"""One engine model, served as a stand-in over HTTP and driven by simulated clocks."""
