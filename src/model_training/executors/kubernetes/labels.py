"""Every label and annotation that we write on a Kubernetes object, and nowhere else.

Labels are for selecting, by people and by us; annotations hold what a lost ledger is rebuilt
from. The keys of ``app.kubernetes.io`` are the project's recommended ones:
https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/
"""

from collections.abc import Mapping
from typing import Final

from model_training.jobs import JobSpec

PREFIX: Final = "model-training.io/"
MANAGED_BY: Final = "model-training-api"

PIPELINE_LABEL: Final = PREFIX + "pipeline"
ID_LABEL: Final = PREFIX + "id"
SPEC_ANNOTATION: Final = PREFIX + "spec"
"""JSON of the JobSpec without its parameters, on the Job"""
PARAMETERS_ANNOTATION: Final = PREFIX + "parameters"
"""canonical JSON of the parameters, on the pod template: the job's file shows this annotation"""


def labels_of(spec: JobSpec) -> Mapping[str, str]:
    """The labels of the Job and its pods."""
    return {
        "app.kubernetes.io/name": "model-training",
        "app.kubernetes.io/component": "training-job",
        "app.kubernetes.io/managed-by": MANAGED_BY,
        PIPELINE_LABEL: spec.pipeline or "",
        ID_LABEL: spec.id,
    }
