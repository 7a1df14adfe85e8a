"""Answers: a category of the taxonomy with a score, or nothing."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doc_classify.classification.chat import ChatReply, Token
from doc_classify.classification.decoding import Decoder
from doc_classify.records import Usage
from doc_classify.taxonomy import DEFAULT_TAXONOMY, Category, Taxonomy

DECODER = Decoder(DEFAULT_TAXONOMY)


def reply(text: str, *tokens: Token) -> ChatReply:
    return ChatReply(text, Usage(1, 100, 0, 3), tokens)


def token(text: str, **alternatives: float) -> Token:
    """A token with its probability first, e.g. token("inv", inv=0.9, rep=0.1)."""
    probabilities = {name.replace("_", " "): share for name, share in alternatives.items()}
    logs = tuple((name, math.log(share)) for name, share in probabilities.items())
    return Token(text, math.log(probabilities.get(text, 1.0)), logs)


NAMES = ["invoices", " Invoices\n", '"invoices"', "**invoices**.", "INVOICES", "invoices\n\n"]
NAMED = ["Category: invoices", "The category is invoices.", "Answer: `invoices`"]
NO_NAMES = ["", "  ", "invoice", "inv", "0", "none", "{}", "\ufffd", "I cannot tell"]
SENTENCES = ["invoices or contracts", "invoices, contracts", "not invoices", "This is invoices"]


@pytest.mark.parametrize("text", [*NAMES, *NAMED])
def test_a_bare_name_is_read(text: str):
    decision = DECODER.name(reply(text))
    assert decision is not None and decision.category == "invoices"
    assert decision.scores == () and decision.label_mass is None


@pytest.mark.parametrize("text", [*NO_NAMES, *SENTENCES])
def test_anything_else_is_no_answer(text: str):
    assert DECODER.name(reply(text)) is None


def test_scores_are_shared_out_among_the_categories():
    answer = reply("invoices", token("inv", inv=0.6, rep=0.2, The=0.2), token("oices", oices=1.0))
    decision = DECODER.name(answer)
    assert decision is not None
    assert dict(decision.scores) == pytest.approx(
        {"invoices": 0.75, "reports": 0.25}
        | dict.fromkeys(["contracts", "correspondence", "research", "compliance", "other"], 0.0)
    )
    assert decision.scores[0] == ("invoices", 0.75)
    assert decision.label_mass == pytest.approx(0.8)


def test_names_that_begin_alike_are_told_apart_where_they_part():
    """ "co" is the beginning of three names; only the next token says which."""
    answer = reply(
        "contracts",
        token("co", co=0.8, inv=0.2),
        token("ntracts", ntracts=0.75, rrespondence=0.25),
    )
    decision = DECODER.name(answer)
    assert decision is not None
    scores = dict(decision.scores)
    assert scores["contracts"] == pytest.approx(0.6)
    assert scores["correspondence"] == pytest.approx(0.2)
    assert scores["invoices"] == pytest.approx(0.2)


def test_a_name_that_is_the_beginning_of_another():
    decoder = Decoder(Taxonomy((Category("report"), Category("report draft"), Category("map"))))
    answer = reply("report", token("report", report=0.9, map=0.1), token("", _draft=0.3))
    decision = decoder.name(answer)
    assert decision is not None and decision.category == "report"
    scores = dict(decision.scores)
    assert scores["report"] == pytest.approx(0.9 * 0.7 / (0.9 + 0.1), abs=0.15)
    # Without the token that ends the answer, all of it is the shorter name's.
    decision = decoder.name(reply("report", token("report", report=0.9, map=0.1)))
    assert decision is not None and dict(decision.scores)["report"] == pytest.approx(0.9)


@pytest.mark.parametrize("name", ["Invoices (paid)", ".NET", "(none)", "Q&A", "a - b", "«Разное»"])
def test_names_with_signs_at_their_ends(name: str):
    decoder = Decoder(Taxonomy((Category(name), Category("other"))))
    for text in (name, f'"{name}"', f"{name}.", f"**{name}**", f"Category: {name}", name.upper()):
        decision = decoder.name(reply(text, token(name, **{name: 0.8, "other": 0.2})))
        assert decision is not None and decision.category == name, text
        assert dict(decision.scores)[name] == pytest.approx(0.8)


def test_an_endless_answer_costs_nothing():
    import time

    for text in (" " * 1_000_000, "`" * 1_000_000, '{"a":' * 100_000, "category" * 100_000):
        started = time.process_time()
        assert DECODER.name(reply(text)) is None and DECODER.json(reply(text)) is None
        assert time.process_time() - started < 1.0


def test_tokens_before_the_name_do_not_count():
    """A blank or a quote of its own in front, and sentencepiece's mark."""
    answer = reply(
        ' "invoices', token(' "', **{' "': 1.0}), token("▁inv", **{"▁inv": 0.5, "rep": 0.5})
    )
    decision = DECODER.name(answer)
    assert decision is not None
    assert dict(decision.scores)["invoices"] == pytest.approx(0.5)


def test_json_with_the_score_at_the_place_of_the_name():
    tokens = [
        token(part, **{part: 1.0}) for part in ('{"reasoning": "category: ', 'x", ', '"category"')
    ]
    answer = reply(
        '{"reasoning": "category: x", "category": "reports"}',
        *tokens,
        token(': "', **{': "': 1.0}),
        token("rep", rep=0.7, con=0.1, inv=0.2),
        token('orts"}', **{'orts"}': 1.0}),
    )
    decision = DECODER.json(answer)
    assert decision is not None
    assert (decision.category, decision.reasoning) == ("reports", "category: x")
    scores = dict(decision.scores)
    assert (scores["reports"], scores["invoices"], scores["contracts"]) == (0.7, 0.2, 0.1)


@pytest.mark.parametrize(
    "text",
    ["", "reports", "[]", "{}", '{"category": 5}', '{"category": "maps"}', '{"category": "rep'],
)
def test_json_that_is_none_of_ours(text: str):
    assert DECODER.json(reply(text)) is None


def test_json_in_a_fence_is_read():
    decision = DECODER.json(reply('```json\n{"category": "other"}\n```'))
    assert decision is not None and decision.category == "other"


def test_a_number_that_is_none_is_ignored():
    answer = reply("invoices", Token("inv", -0.1, (("inv", -0.1), ("rep", -math.inf))))
    decision = DECODER.name(answer)
    assert decision is not None and dict(decision.scores)["invoices"] == 1.0


@given(
    st.sampled_from(DEFAULT_TAXONOMY.names),
    st.lists(st.tuples(st.text(max_size=6), st.floats(-30, 0)), min_size=0, max_size=20),
    st.integers(1, 12),
)
def test_scores_are_shares_whatever_the_server_says(
    name: str, alternatives: list[tuple[str, float]], cut: int
):
    tokens = (
        Token(name[:cut], -0.5, tuple(alternatives)),
        Token(name[cut:], -0.1, tuple(alternatives)),
    )
    decision = DECODER.name(reply(name, *tokens))
    assert decision is not None and decision.category == name
    if decision.scores:
        assert sum(score for _, score in decision.scores) == pytest.approx(1.0, abs=1e-3)
        assert all(0.0 <= score <= 1.0 for _, score in decision.scores)
    json.dumps(decision.scores)
