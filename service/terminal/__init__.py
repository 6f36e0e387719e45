"""The terminal: tables, details and progress bars as text."""
