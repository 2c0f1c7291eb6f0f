"""Who may do what by the XACML policy that we ship, as the engine inside of aiSSEMBLE's says.

The questions are those that the service sends with the default words; who gets a yes is written
down by hand.
"""

from pathlib import Path

import pytest

from tests.access.conftest import POLICIES
from tests.access.servers import authzforce

POLICY = POLICIES / "aissemble/policy.xml"
SCIENTISTS = {"lea", "ben"}
ALL = {*SCIENTISTS, "olga"}
NOBODY: set[str] = set()
WHO = [*sorted(ALL), "eve", "Lea", "lea ", "olga2", "corp/lea"]
TABLE = [
    *(
        ("model-training/fraud-cards", f"training-job-{action}", ALL)
        for action in ("create", "list", "read", "read_logs", "read_outputs", "stop")
    ),
    ("model-training/fraud-cards", "training-job-delete", {"olga"}),
    ("model-training/fraud", "training-job-read", {"olga"}),
    ("model-training/not-fraud-cards", "training-job-read", {"olga"}),
    ("model-training/churn", "training-job-create", {"olga"}),
    ("model-training/", "training-job-list", ALL),
    ("model-training/", "training-job-read", {"olga"}),
    # What is not of this service
    ("other/model-training/fraud-cards", "training-job-read", NOBODY),
    ("model-training", "training-job-read", NOBODY),
    ("", "data-access", NOBODY),
    ("model-training/fraud-cards", "create", NOBODY),
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], str]:
    asked = [(who, resource, action) for resource, action, _ in TABLE for who in WHO]
    root = tmp_path_factory.mktemp("authzforce")
    return dict(zip(asked, authzforce.decided(root, POLICY, asked), strict=True))


@pytest.mark.parametrize(("resource", "action", "may"), TABLE)
def test_a_question_is_answered_for_everybody_as_the_table_says(
    answers: dict[tuple[str, str, str], str], resource: str, action: str, may: set[str]
):
    found = {who: answers[who, resource, action] for who in WHO}
    assert {who for who, verdict in found.items() if verdict == "PERMIT"} == may
    assert set(found.values()) <= {"PERMIT", "DENY"}, "nothing is left undecided"


def test_a_policy_that_is_no_policy_is_refused(tmp_path: Path):
    """By the same means, so that a yes above says that the policy is valid XACML 3.0."""
    broken = tmp_path / "policy.xml"
    broken.write_text(POLICY.read_text().replace("<Target/>", "", 1))
    with pytest.raises(AssertionError, match="Target"):
        authzforce.decided(tmp_path, broken, [])
