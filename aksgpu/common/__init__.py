"""Code that the library and the laptop AKS share. It imports nothing of the package except `aksgpu.errors`."""
