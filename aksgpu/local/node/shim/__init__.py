"""The supervisor of one container. It runs as a separate process.

:mod:`aksgpu.local.node.container_run` starts it as ``python -I -S -c ...`` with this package on the path. It uses only
the standard library and no other module of aksgpu, so that it starts in milliseconds.
"""
