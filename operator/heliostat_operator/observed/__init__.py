"""What runs, read from the Kubernetes API and put into words: pure, the time comes in."""
