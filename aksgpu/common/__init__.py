"""What the library and the laptop AKS share. Imports nothing of either but the errors."""
