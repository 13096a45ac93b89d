"""Mutated messages of every form that comes from a network, in processes that may die of them."""
