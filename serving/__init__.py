"""The gRPC server: batches requests and runs a model bundle; it never sees the training stack."""
