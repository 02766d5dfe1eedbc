"""The engine side: one thread owns the device and processes the queue."""
