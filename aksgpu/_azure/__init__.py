"""What :mod:`aksgpu.azure`, :mod:`aksgpu.sizes` and :mod:`aksgpu.cluster` are made of. Private."""
