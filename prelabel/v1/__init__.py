"""Generated from protos/prelabel/v1 by `make proto`; do not edit."""
