"""Discovery: which pools there are, wherever their manifests live."""
