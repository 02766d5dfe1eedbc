"""The test rig of xpu.fleet: test hosts, a local package mirror and GPU stand-ins for them.

Nothing in the collection knows of this package; what it makes are fixtures and say so.
Entry point: ``PYTHONPATH=molecule python3 -m rig --help``.
"""
