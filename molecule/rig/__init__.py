"""The test rig of xpu.fleet: test hosts, a local package mirror and GPU stand-ins for them.

Nothing in the collection depends on this package; it makes fixtures, and they say so.
Entry point: ``PYTHONPATH=molecule python3 -m rig --help``.
"""
