"""The aggregator: round state machine, journal, spool, gRPC service and crypto worker processes."""
