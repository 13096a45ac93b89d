"""What can be read of clients' samples in what their updates leave in the clear.

A *victim* is a network and its task; a client's *training* makes an update of a batch; a *protection* decides
which entries of it are hidden and what is done to the others; what an attacker then knows is an *exposure*;
an *attacker* turns it into a *reconstruction*; *metrics* compare that with the batch, *measures* say without
an attack what the exposure holds; the *bench* plays sweeps of all these and writes what came of them.
"""
