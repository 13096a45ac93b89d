"""Bridges between training frameworks and named float32 tensors; each needs its framework installed."""
