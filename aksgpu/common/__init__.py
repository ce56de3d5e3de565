"""Code that both the library and the laptop AKS use. It imports nothing else from the package."""
