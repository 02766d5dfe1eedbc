"""Faults at every step of a kernel change, on machines that really boot: injected, survived, repaired.

``python3 -m kernel.faults`` (with PYTHONPATH=molecule) runs them; ``--list`` names them.
"""
