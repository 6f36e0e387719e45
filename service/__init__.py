"""The service: everything with state or input and output: store, jobs, HTTP, command line."""
