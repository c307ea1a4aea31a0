"""Asks a TF Serving server by REST or gRPC."""
