"""Every operation of the API: one table, for the routes, the OpenAPI document and its tests."""

from typing import Final

from model_training.api.job_operations import JOB_OPERATIONS
from model_training.api.service_operations import SERVICE_OPERATIONS

OPERATIONS: Final = (*JOB_OPERATIONS, *SERVICE_OPERATIONS)
