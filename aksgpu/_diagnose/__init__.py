"""Parts of :mod:`aksgpu.diagnose`. Private."""
