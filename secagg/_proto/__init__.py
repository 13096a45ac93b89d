"""Generated from proto/secagg/v1; private to this package. `make proto` rewrites it."""
