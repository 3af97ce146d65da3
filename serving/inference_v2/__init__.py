"""Generated from protos/serving/inference_v2 by `make proto`; do not edit."""
