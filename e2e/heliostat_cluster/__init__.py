"""A Kubernetes cluster of local processes: the real control plane, nodes played by us."""
