"""The engine side: one thread owns the device and works through the queue."""
