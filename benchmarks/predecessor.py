"""The predecessor's service outside of a pod: ``predecessor.py KUBECONFIG NAMESPACE PORT``.

Runs in the environment that its published package was installed into. It takes for granted that it
is in a pod: it reads two things there while it is imported, which are put in place for exactly that
long. Nothing that it does afterwards is changed.
"""

import builtins
import io
import sys
from typing import Any

import uvicorn
from kubernetes import config

NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


def imported(kubeconfig: str, namespace: str) -> Any:
    real_open = builtins.open

    def pod_open(file: Any, *args: Any, **kwargs: Any) -> Any:
        if file == NAMESPACE_FILE:
            return io.StringIO(namespace)
        return real_open(file, *args, **kwargs)

    config.load_incluster_config = lambda: config.load_kube_config(kubeconfig)
    builtins.open = pod_open
    try:
        from model_training_api.model_training_api import app
    finally:
        builtins.open = real_open
    return app


if __name__ == "__main__":
    kubeconfig, namespace, port = sys.argv[1:]
    uvicorn.run(imported(kubeconfig, namespace), host="127.0.0.1", port=int(port))
