"""The tests run on no cluster that is not named for them."""

from pathlib import Path

import pytest

from tests.cluster import target


def named(monkeypatch: pytest.MonkeyPatch, file: Path, text: str) -> None:
    file.write_text(text)
    monkeypatch.setattr(target, "NAMED", str(file))


@pytest.mark.parametrize("context", ["kind-test", "model-training-testbed"])
def test_a_context_named_for_tests_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: str
):
    named(monkeypatch, tmp_path / "config", f"current-context: {context}\n")
    assert target.kubeconfig() == tmp_path / "config"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("current-context: production\n", "'production'"),
        ("contexts: []\n", "named ''"),
        ("", "named ''"),
        ("just text", "is no kubeconfig"),
        ("a: [", "is no kubeconfig"),
    ],
)
def test_any_other_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
):
    named(monkeypatch, tmp_path / "config", text)
    with pytest.raises(ValueError, match=words):
        target.kubeconfig()


def test_where_none_is_named_the_way_out_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(target, "NAMED", "")
    with pytest.raises(ValueError, match="run scripts/test --cluster"):
        target.kubeconfig()
