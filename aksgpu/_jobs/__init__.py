"""What :mod:`aksgpu.jobs` is made of. Private."""
