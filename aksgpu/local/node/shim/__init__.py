"""The keeper of one container, a process of its own.

It is started by :mod:`aksgpu.local.node.container_run` as ``python -I -S -c ...`` with this package at the top of
the path:
standard library only, and nothing of the rest of the project, so that it starts in milliseconds.
"""
