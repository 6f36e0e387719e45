"""Everything with state or input and output: settings, store, command line."""
