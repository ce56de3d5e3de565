"""The API server of the laptop's Kubernetes clusters."""
