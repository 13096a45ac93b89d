"""What encryption costs: bytes, seconds and memory per model and scheme, as ``secagg overhead`` measures."""
