"""What should run for a pool, as Kubernetes objects: pure translation, held by golden files."""
