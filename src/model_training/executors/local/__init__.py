"""Training jobs as processes of this machine, each with a supervisor of its own."""
