"""What :mod:`aksgpu.kube`, :mod:`aksgpu.logs` and the rooms that only read the cluster are made of. Private."""
