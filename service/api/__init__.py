"""The HTTP service: application, guard, schemas, files."""
