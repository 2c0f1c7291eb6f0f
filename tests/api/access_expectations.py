"""What every route answers to whom, written by hand: the table that is proved, and the page of it.

``test_access_matrix.py`` holds a service to it, ``scripts/docs`` makes
``docs/reference/access-matrix.md`` of it. It imports nothing of the product and computes nothing,
since a table that is computed would repeat the mistakes of what it judges.
"""

from dataclasses import dataclass
from typing import NamedTuple

NO = "403 forbidden"
HIDDEN = "404 job-not-found"
UNSEEN = "404 pipeline-not-found"
NO_FILE = "404 output-not-found"
NOBODY = "503 access-unavailable"
ELSEWHERE = "404 not-found"
WRONG_METHOD = "405 method-not-allowed"


class Answers(NamedTuple):
    """By what the decision point says. An answer is a status, and the type of the problem."""

    permit: str
    """yes to everything"""
    read_alone: str
    """yes to ``read``, no to every other action"""
    own: str
    """yes to ``create``, to ``list``, to pipelines, and to everything about the caller's own jobs;
    here: asked about one of these"""
    others: str
    """the same, asked about a job of somebody else; empty where no job is named"""
    deny: str
    """no to everything"""
    unanswered: str
    """it is away, it is too slow, or it talks nonsense"""


# For an API key that was not made for the action, whatever its holder may do: the decision point is
# asked only whether the job may at least be read.
ABOVE = Answers(NO, NO, NO, HIDDEN, HIDDEN, NOBODY)
NEVER = Answers(NO, NO, NO, "", NO, NO)
NEVER_SEEN = Answers(HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN)

JOB_READ = Answers("200", "200", "200", HIDDEN, HIDDEN, NOBODY)
JOB_SHOWN = Answers("200", NO, "200", HIDDEN, HIDDEN, NOBODY)
JOB_ABSENT = Answers(HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN, NOBODY)
LISTED = Answers("200", NO, "200", "", NO, NOBODY)
OF_SERVICE = Answers("200", "200", NO, "", NO, NOBODY)


@dataclass(frozen=True)
class Row:
    """One way to ask one route."""

    method: str
    """GET stands for HEAD, too, which answers the same without a body"""
    route: str
    action: str
    about: str
    good: Answers
    """for a good JSON Web Token, API key or local token"""
    unfit: Answers
    """for a good API key that was not made for the action"""
    query: str = ""
    path: str = ""
    """where it is not that of the route with a job's name in it"""
    accept: str = ""
    job: str = "ended"
    """which job is named: one that has ended, one that is running, or none that is there"""
    effect: str = ""
    """what a 2xx has changed"""


JOB = "/training-jobs/{name}"
OUTPUTS = "/training-jobs/{name}/outputs"
OUTPUT = "/training-jobs/{name}/outputs/{path}"
PIPELINE = "/pipelines/{pipeline}"

# fmt: off
ROWS = (
    Row("POST", "/training-jobs", "create", "training_pipeline",
        Answers("201", NO, "201", "", NO, NOBODY), NEVER,
        query="pipeline=quick", effect="created"),
    Row("POST", "/training-jobs", "create", "training_pipeline",
        Answers("200", NO, "200", "", NO, NOBODY), NEVER,
        query="pipeline=quick&dry_run=true"),
    Row("POST", "/training-jobs", "create", "training_pipeline",
        Answers(UNSEEN, NO, UNSEEN, "", NO, NOBODY), NEVER,
        query="pipeline=absent"),
    Row("GET", "/training-jobs", "list", "training_service", LISTED, NEVER),
    Row("GET", "/training-jobs", "list", "training_service", LISTED, NEVER, query="limit=5"),
    Row("GET", "/training-jobs", "list", "training_pipeline", LISTED, NEVER,
        query="pipeline=quick&state=completed"),
    Row("GET", JOB, "read_logs", "training_job", JOB_SHOWN, ABOVE),
    Row("GET", JOB, "read_logs", "training_job", JOB_SHOWN, ABOVE, query="follow=true"),
    Row("GET", JOB, "read_logs", "training_job", JOB_SHOWN, ABOVE, accept="text/event-stream"),
    Row("GET", JOB, "read_logs", "training_job", JOB_ABSENT, JOB_ABSENT, job="absent"),
    Row("GET", f"{JOB}/status", "read", "training_job", JOB_READ, NEVER_SEEN),
    Row("GET", f"{JOB}/status", "read", "training_job", JOB_READ, NEVER_SEEN, job="running"),
    Row("GET", f"{JOB}/status", "read", "training_job", JOB_ABSENT, NEVER_SEEN, job="absent"),
    Row("GET", f"{JOB}/status", "read", "training_job",
        NEVER_SEEN, NEVER_SEEN, path="/training-jobs/no-name-of-a-job/status"),
    Row("GET", f"{JOB}/status", "read", "training_job",
        NEVER_SEEN, NEVER_SEEN, path="/training-jobs/%2e%2e/status"),
    Row("GET", f"{JOB}/status", "read", "training_job",
        NEVER_SEEN, NEVER_SEEN, path="/training-jobs/%FF/status"),
    Row("GET", JOB, "read_logs", "training_job",
        NEVER_SEEN, NEVER_SEEN, path="/training-jobs/{name}%2Fstatus"),
    Row("GET", OUTPUTS, "read_outputs", "training_job", JOB_SHOWN, ABOVE),
    Row("GET", OUTPUTS, "read_outputs", "training_job", JOB_ABSENT, JOB_ABSENT, job="absent"),
    Row("GET", OUTPUT, "read_outputs", "training_job", JOB_SHOWN, ABOVE),
    Row("GET", OUTPUT, "read_outputs", "training_job",
        Answers(NO_FILE, NO, NO_FILE, HIDDEN, HIDDEN, NOBODY), ABOVE,
        path="/training-jobs/{name}/outputs/"),
    Row("GET", OUTPUT, "read_outputs", "training_job",
        Answers(NO_FILE, NO, NO_FILE, HIDDEN, HIDDEN, NOBODY), ABOVE,
        path="/training-jobs/{name}/outputs/../spec.json"),
    Row("GET", OUTPUT, "read_outputs", "training_job", JOB_ABSENT, JOB_ABSENT, job="absent"),
    Row("POST", f"{JOB}/stop", "stop", "training_job",
        Answers("202", NO, "202", HIDDEN, HIDDEN, NOBODY), ABOVE,
        job="running", effect="stopped"),
    Row("POST", f"{JOB}/stop", "stop", "training_job", JOB_SHOWN, ABOVE),
    Row("POST", f"{JOB}/stop", "stop", "training_job", JOB_ABSENT, JOB_ABSENT, job="absent"),
    Row("DELETE", JOB, "delete", "training_job",
        Answers("202", NO, "202", HIDDEN, HIDDEN, NOBODY), ABOVE,
        effect="removed"),
    Row("DELETE", JOB, "delete", "training_job",
        Answers("204", NO, "204", HIDDEN, HIDDEN, NOBODY), ABOVE,
        query="wait=60", job="running", effect="removed"),
    Row("DELETE", JOB, "delete", "training_job", JOB_ABSENT, JOB_ABSENT, job="absent"),
    Row("GET", "/pipelines", "list", "training_pipeline", LISTED, NEVER),
    Row("GET", PIPELINE, "read", "training_pipeline",
        Answers("200", "200", "200", "", UNSEEN, NOBODY),
        Answers(UNSEEN, UNSEEN, UNSEEN, "", UNSEEN, UNSEEN)),
    Row("GET", PIPELINE, "read", "training_pipeline",
        Answers(UNSEEN, UNSEEN, UNSEEN, "", UNSEEN, NOBODY),
        Answers(UNSEEN, UNSEEN, UNSEEN, "", UNSEEN, UNSEEN),
        path="/pipelines/absent"),
    Row("GET", "/metrics", "read", "training_service", OF_SERVICE, NEVER),
    Row("GET", "/openapi.json", "read", "training_service", OF_SERVICE, NEVER),
    Row("GET", "/docs", "read", "training_service", OF_SERVICE, NEVER),
)
# fmt: on

# What anybody is answered, with or without a credential, and nobody is asked.
PROBES = {"/livez": "200", "/readyz": "200; 503 until it is ready"}
OTHER_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
"""a method that a route does not have is answered ``WRONG_METHOD``, HEAD as GET"""
NOWHERE = (
    "/", "//", "/training-jobs/", "//training-jobs", "/training-jobs//", "/training-jobs/{name}/",
    "/training-jobs//{name}", "/training-jobs/{name}//status", "/training-jobs/{name}/status/",
    "/training-jobs/{name}/stop/", "/Training-Jobs",
    "/training-jobs/{name}/../{name}/status", "/./training-jobs",
    "/pipelines/", "/pipelines/quick/", "/pipelines//quick", "/metrics/", "//metrics", "/docs/",
    "/docs/oauth2-redirect", "/redoc", "/openapi.json/", "/openapi.yaml", "/livez/", "//livez",
    "/static/x", "/favicon.ico", "/.git/config", "/api/pdp", "/jobs", "/admin", "/ws",
)  # fmt: skip
"""paths of no route: ``ELSEWHERE``, whatever the method"""


class BadCredential(NamedTuple):
    """A credential that nobody is known by."""

    name: str
    answer: str
    challenge: str
    """the header WWW-Authenticate"""


# The same on every row above, whatever the decision point says: it is not asked.
BAD_CREDENTIALS = (
    BadCredential("none", "401 unauthenticated", "Bearer"),
    BadCredential("malformed", "401 unauthenticated", "Bearer"),
    BadCredential("forged", "401 unauthenticated", 'Bearer error="invalid_token"'),
    BadCredential("expired", "401 unauthenticated", 'Bearer error="invalid_token"'),
    BadCredential("for another service", "401 unauthenticated", 'Bearer error="invalid_token"'),
    BadCredential("two at once", "400 malformed-request", ""),
)
