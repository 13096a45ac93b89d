"""One whole federation on one machine: real processes, real sockets, real data."""
