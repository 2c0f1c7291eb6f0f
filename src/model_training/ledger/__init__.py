"""What happened: one SQLite file."""
