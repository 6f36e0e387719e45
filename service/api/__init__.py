"""The HTTP service: application, request checks, schemas, files."""
