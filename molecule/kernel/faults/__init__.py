"""Faults at every step of a kernel's change, on machines that really boot: injected, survived, mended.

``python3 -m kernel.faults`` (with PYTHONPATH=molecule) runs them; ``--list`` names them.
"""
