"""A real Kubernetes on this machine, for tests and benchmarks: docs/howto/test-cluster.md.

Standard library alone. ``cluster`` is the whole single node; ``control_plane`` is etcd and
kube-apiserver alone, private to one test, which may break it.
"""
