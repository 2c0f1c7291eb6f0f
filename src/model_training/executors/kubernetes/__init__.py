"""Training jobs as ``batch/v1`` Jobs of a Kubernetes cluster, which is the engine of real loads."""
