"""The laptop's Kubernetes API server."""
