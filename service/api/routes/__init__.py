"""Routes, one file per kind of resource."""
