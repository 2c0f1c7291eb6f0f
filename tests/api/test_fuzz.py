from pathlib import Path

import pytest

from tests.api.fuzz import fuzz


@pytest.mark.timeout(240)
def test_no_generated_request_is_answered_by_a_fault_or_undocumented(tmp_path: Path) -> None:
    assert fuzz(tmp_path, 2000) >= 2000
