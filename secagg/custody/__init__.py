"""Who holds which key: identities, certificates, the roster, dealing keys to clients.

Nothing is imported here, so that reading a certificate does not load the lattice library.
"""
