"""Attacks on federations, run against exactly what a setting allows."""
