"""Fits of whole networks: what is looked for, objectives, and the optimisers that lower them."""
