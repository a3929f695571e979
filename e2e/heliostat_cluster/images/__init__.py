"""What the fake kubelet runs for an image name."""
