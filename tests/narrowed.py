"""Heads and explanations by the narrower type that a test knows them to have."""

from __future__ import annotations

from unitscope.attribution.exact_explanation import ExactExplanation
from unitscope.attribution.exact_heads import ExactHead
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.head import Head


def exact_head(head: Head) -> ExactHead:
    assert isinstance(head, ExactHead)
    return head


def exactly(explanation: Explanation) -> ExactExplanation:
    assert isinstance(explanation, ExactExplanation)
    return explanation
