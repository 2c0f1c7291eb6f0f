"""What decides: a file of roles, decision points over HTTP, or the cluster."""
