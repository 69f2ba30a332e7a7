"""Every refusal has words that a person understands."""

import re

import pytest

from edge_agent.refusal import Refusal, Side, hint, sentence


@pytest.mark.parametrize("refusal", Refusal)
def test_every_refusal_has_a_sentence(refusal):
    """Each code says what is wrong, then what to do, and has a hint short enough to stand over the live picture."""
    said = sentence(refusal)
    assert re.fullmatch(r"[A-Z][^{}]+[:,] [^{}]+\.", said)
    assert not re.search("[a-z]-[a-z]", said), "a code is not a word"
    assert len(said) < 160
    assert 1 <= len(hint(refusal).split()) <= 4


def test_glare_says_where():
    """With a place glare is told with it, without one it stays readable."""
    assert sentence(Refusal.GLARE, Side.LEFT).startswith("Glare on the left: turn the screen")
    assert sentence(Refusal.GLARE).startswith("Glare: turn the screen")
    assert {hint(Refusal.GLARE, side) for side in Side} == {
        "glare on the left",
        "glare on the right",
        "glare at the top",
        "glare at the bottom",
        "glare in the middle",
    }


def test_codes_are_stable_words():
    """Codes are counted and sent: each is its own, in small letters with dashes."""
    assert len(set(Refusal)) == len(Refusal)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in Refusal)
