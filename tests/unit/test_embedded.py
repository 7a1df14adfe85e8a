import time
from pathlib import Path

import pytest

from doc_classify.classification import ClassifierInput, make_classifier
from doc_classify.errors import ConfigurationError
from doc_classify.taxonomy import DEFAULT_TAXONOMY, Category, Taxonomy

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus" / "labelled" / "office7"

SAMPLES = {
    "invoices": [
        "INVOICE\nInvoice no. 2201 Date 3 May 2024\nBill to: Hartwell Ltd\n4 chairs 49.00 196.00\n"
        "Subtotal 196.00\nVAT 20% 39.20\nTotal due 235.20\nPlease remit to IBAN GB00 0000",
        "Rechnung Nr. 77\nRechnungsdatum 01.02.2023\nMenge Einzelpreis Betrag\n3 12,50 37,50\n"
        "Umsatzsteuer 19% 7,13\nGesamtbetrag 44,63 EUR zahlbar bis 15.02.2023",
    ],
    "contracts": [
        "This Agreement is entered into by and between Alder Corp and Birch LLC (the parties). "
        "WHEREAS the parties wish to cooperate, now therefore they agree as follows.\n"
        "1. Term. This Agreement shall commence on the Effective Date.\n2. Governing law. "
        "IN WITNESS WHEREOF the parties hereto have executed this Agreement.",
    ],
    "reports": [
        "Annual Report 2022\nExecutive summary\nIn the fiscal year revenue increased by 12% to "
        "$4 million compared to the prior year, and net income decreased by 3%.\nKey figures\n"
        "Recommendations\nThe consolidated balance sheet and cash flows are in the appendix.",
    ],
    "correspondence": [
        "Dear Ms Young,\n\nThank you for your letter of 4 June. I would like to meet you next week "
        "to talk about the garden. Please let me know if Tuesday suits you.\n\nYours sincerely,\n"
        "Paul Green",
        "From: ann@example.org\nTo: bob@example.org\nSubject: lunch\n\nHi Bob,\nare you free "
        "tomorrow? Let me know.\nBest regards\nAnn",
    ],
    "research": [
        "Abstract\nWe propose a method for parsing. In this paper we present experiments on a "
        "corpus [1, 2]. Our approach outperforms the baseline (Smith et al., 2014).\n"
        "1 Introduction\nRelated work\nReferences\n[1] A. Smith. Proceedings of the conference.",
    ],
    "compliance": [
        "Privacy Policy\nThis policy describes how we collect and use personal data under the "
        "GDPR. Personal information must be protected by access control. All employees must "
        "comply with this policy. Audit and incident response procedures are mandatory.",
    ],
    "other": [
        "Pancakes\nMix flour, eggs and milk. Heat the pan and pour in a ladle of batter. Turn when "
        "bubbles appear on top, and serve with lemon, sugar or honey while still hot.",
    ],
}


@pytest.fixture(scope="module")
def default():
    return make_classifier("embedded", DEFAULT_TAXONOMY)


@pytest.mark.parametrize(
    ("category", "text"), [(name, text) for name, texts in SAMPLES.items() for text in texts]
)
def test_each_default_category_is_recognised(default, category, text):
    found = default.classify(ClassifierInput(text), include_reasoning=True)
    assert found.category == category
    assert found.scores[0][0] == category
    assert sum(score for _, score in found.scores) == pytest.approx(1, abs=0.01)
    assert 0 < found.confidence <= 1
    assert f"for {category}:" in found.reasoning


def test_a_taxonomy_of_ones_own_is_read_from_names_descriptions_and_keywords():
    taxonomy = Taxonomy(
        (
            Category("sport", "Matches, teams, players and tournaments."),
            Category("cooking", "Recipes and kitchens.", keywords=("baking powder",)),
            Category("other"),
        )
    )
    classifier = make_classifier("embedded", taxonomy)
    sport = "The team won the match and its players lead the tournament, the coach said. " * 3
    cooking = "Add the baking powder, then bring the recipe to your own kitchen. " * 3
    assert classifier.classify(ClassifierInput(sport)).category == "sport"
    found = classifier.classify(ClassifierInput(cooking))
    assert found.category == "cooking"
    assert found.confidence is None  # nothing was calibrated for these categories
    assert classifier.classify(ClassifierInput("The moon is far away. " * 9)).category == "other"


def test_scripts_without_spaces():
    taxonomy = Taxonomy((Category("請求書", "支払金額の請求"), Category("契約書", "当事者の合意")))
    classifier = make_classifier("embedded", taxonomy)
    assert (
        classifier.classify(ClassifierInput("本契約書は当事者間の合意です。")).category == "契約書"
    )


def test_the_title_and_the_name_count(default):
    text = "Lorem ipsum dolor sit amet. " * 5
    titled = default.classify(ClassifierInput(text, title="Invoice no 12: amount due, total due"))
    assert titled.category == "invoices"


def test_thin_evidence_is_for_review(default):
    assert default.classify(ClassifierInput("Hello")).needs_review
    assert default.classify(ClassifierInput("xkcd qwer asdf zxcv " * 20)).category == "other"


def test_answers_are_the_same_every_time():
    text = ClassifierInput(SAMPLES["contracts"][0], name="agreement.pdf")
    answers = [make_classifier("embedded", DEFAULT_TAXONOMY).classify(text) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize(
    "text",
    [unit * 200_000 for unit in ("aaaaa", "( ", '"', "1.", "\n\n\n", "from:", "(Aa ", " §")],
)
def test_hostile_texts_take_linear_time(default, text):
    started = time.process_time()
    default.classify(ClassifierInput(text, name=text[:300], title=text))
    assert time.process_time() - started < 2


def test_an_unknown_classifier_is_refused_with_those_there_are():
    with pytest.raises(ConfigurationError, match="embedded"):
        make_classifier("oracle", DEFAULT_TAXONOMY)


def test_real_documents(default):
    if not CORPUS.is_dir():
        pytest.skip("the labelled documents are not here")
    files = sorted(CORPUS.rglob("*.txt"))[::3]
    right = sum(
        default.classify(ClassifierInput(file.read_text("utf-8", "replace"))).category
        == file.parent.name
        for file in files
    )
    assert right / len(files) > 0.8
