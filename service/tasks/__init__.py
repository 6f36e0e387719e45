"""Tasks: run an analysis and store its result, for commands and jobs alike."""
