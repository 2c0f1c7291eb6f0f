"""What schemathesis is told about this service while it sends requests; loaded by schemathesis.

It would find few jobs by itself, for their names are random: most of what it sends would be
answered by 404, and prove nothing. So of the jobs that the cases of an operation name, every third
is replaced by one of somebody else's, which must answer as if it were not there, and every third
by one of the sender's own, made on demand.
"""

import json
import os
from collections import Counter
from typing import Any

import httpx2
import schemathesis
from schemathesis.core.parameters import ParameterLocation

SERVER = json.loads(os.environ["FUZZED_SERVER"])
USER = "ann"
# As for a job that is not there: its credentials are refused, or what was sent is, before anybody
# looks for the job.
SAYS_NOTHING = {400, 401, 404, 405, 413, 414, 415, 422, 431}
_turns: Counter[str] = Counter()
_own: list[str] = []  # the last of them may be there; what is sent deletes them, too
_client = httpx2.Client(
    base_url=SERVER["url"], headers={"Authorization": f"Bearer {SERVER['key']}"}, timeout=20
)


@schemathesis.hook
def before_call(context: Any, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    name = case.path_parameters.get("name")
    if name is None or not _names_a_job(case) or case.auth_identity != USER:
        return
    if name in _own or name in SERVER["theirs"]:  # as the copy of a case that was changed already
        return
    turn = _turns[case.operation.label]
    _turns[case.operation.label] += 1
    if turn % 3 == 0:
        case.path_parameters["name"] = SERVER["theirs"][turn // 3 % len(SERVER["theirs"])]
    elif turn % 3 == 1:
        case.path_parameters["name"] = _own_job()


def _names_a_job(case: schemathesis.Case) -> bool:
    if not case.operation.path.startswith("/training-jobs/{name}"):
        return False
    return case.meta is None or not case.meta.is_negative_at(ParameterLocation.PATH)


def _own_job() -> str:
    """One that is there now."""
    if not _own or _client.get(f"/training-jobs/{_own[-1]}/status").status_code != 200:
        answer = _client.post("/training-jobs?pipeline=digits", json={})
        assert answer.status_code == 201, answer.text
        _own.append(answer.json()["name"])
    return _own[-1]


@schemathesis.check
def jobs_of_others_are_absent(
    ctx: Any, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    if case.path_parameters.get("name") in SERVER["theirs"]:
        assert response.status_code in SAYS_NOTHING, "a job of somebody else is told of"
