"""Tasks: do an analysis and store it, for commands and jobs alike."""
