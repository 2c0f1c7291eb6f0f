"""Where Kubernetes keeps what we ask for; a namespace of None stands for all of them."""


def jobs(namespace: str | None) -> str:
    """All Jobs."""
    return f"/apis/batch/v1{_in(namespace)}/jobs"


def job(namespace: str, name: str) -> str:
    """One Job."""
    return f"{jobs(namespace)}/{name}"


def pods(namespace: str | None) -> str:
    """All Pods."""
    return f"/api/v1{_in(namespace)}/pods"


def pod(namespace: str, name: str) -> str:
    """One Pod."""
    return f"{pods(namespace)}/{name}"


def templates(namespace: str) -> str:
    """All PodTemplates."""
    return f"/api/v1{_in(namespace)}/podtemplates"


def events(namespace: str) -> str:
    """All Events."""
    return f"/api/v1{_in(namespace)}/events"


def nodes() -> str:
    """All Nodes."""
    return "/api/v1/nodes"


def _in(namespace: str | None) -> str:
    return f"/namespaces/{namespace}" if namespace else ""
