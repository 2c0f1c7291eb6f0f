"""Jobs for the tests of the test cluster."""

RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def job(name: str, image: str, command: list[str] | None = None, **pod: object) -> dict:
    """A Job of one try whose pod a restricted namespace admits; ``pod`` adds to its pod."""
    container = {
        "name": "training",
        "image": image,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        **({"command": command} if command else {}),
    }
    spec = {
        "restartPolicy": "Never",
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 0,
        "securityContext": RESTRICTED,
        "containers": [container],
        **pod,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": spec}},
    }
