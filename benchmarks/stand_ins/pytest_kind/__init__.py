"""Takes the place of the package pytest-kind: its cluster is one on the laptop AKS."""
