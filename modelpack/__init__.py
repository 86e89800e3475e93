"""Deliver AI models as chunked, verified OCI artifacts."""
