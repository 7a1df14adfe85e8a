"""The embedded classifier on the default categories."""

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from doc_classify.classification import ClassifierInput, lexicon, make_classifier, structure
from doc_classify.classification.embedded import EmbeddedClassifier
from doc_classify.errors import ConfigurationError
from doc_classify.taxonomy import DEFAULT_TAXONOMY, OTHER, Taxonomy

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus" / "labelled"

SAMPLES = {
    "invoices": [
        "INVOICE\nInvoice no. 2201 Date 3 May 2024\nBill to: Hartwell Ltd\n4 chairs 49.00 196.00\n"
        "Subtotal 196.00\nVAT 20% 39.20\nTotal due 235.20\nPlease remit to IBAN GB00 0000",
        "Rechnung Nr. 77\nRechnungsdatum 01.02.2023\nMenge Einzelpreis Betrag\n3 12,50 37,50\n"
        "Umsatzsteuer 19% 7,13\nGesamtbetrag 44,63 EUR zahlbar bis 15.02.2023",
        "Café du Port\nFacture n° 18\nDate d'échéance : 12/03/2023\nQuantité Prix unitaire "
        "Montant\n"
        "2 14,00 28,00\nTotal HT 28,00\nTVA 20 % 5,60\nTotal TTC 33,60\nNet à payer 33,60 EUR",
        "CORNER STORE\n12 Mill Lane\nReceipt no 00193   Till 2\nTea 2.40\nBread 1.95\nCheese 4.10\n"
        "TOTAL 8.45\nCASH 10.00\nCHANGE 1.55\nThank you for shopping with us",
    ],
    "contracts": [
        "This Agreement is entered into by and between Alder Corp and Birch LLC (the parties). "
        "WHEREAS the parties wish to cooperate, now therefore they agree as follows.\n"
        "1. Term. This Agreement shall commence on the Effective Date.\n2. Governing law. "
        "IN WITNESS WHEREOF the parties hereto have executed this Agreement.",
        "Mietvertrag\nzwischen Herrn Kern (Vermieter) und Frau Lang (Mieterin)\n§ 1 Mietsache\n"
        "Vermietet wird die Wohnung im zweiten Stock.\n§ 2 Laufzeit\nDas Mietverhältnis beginnt am "
        "1. Mai und läuft auf unbestimmte Zeit.\n§ 3 Kündigung\nDie Kündigung bedarf der "
        "Schriftform.\n§ 4 Haftung\nGerichtsstand ist Ulm. Unterschrift",
        "MUTUAL NON-DISCLOSURE AGREEMENT\nThe Disclosing Party may reveal Confidential Information "
        "to the Receiving Party. The Receiving Party shall not use it for any other purpose. This "
        "Agreement shall be governed by the laws of Ireland. Any waiver must be in writing and "
        "either party may terminate on thirty days' written notice.",
    ],
    "reports": [
        "Annual Report 2022\nExecutive summary\nIn the fiscal year revenue increased by 12% to "
        "$4 million compared to the prior year, and net income decreased by 3%.\nKey figures\n"
        "Recommendations\nThe consolidated balance sheet and cash flows are in the appendix.",
        "Monthly status report - Bridge repair\nReporting period: April\nProgress\nThe two "
        "northern "
        "pillars were completed on schedule. Inspection of the deck is behind schedule by a week.\n"
        "Next steps\nOrder bearings; evaluate test results.\nBudget: 62% spent to date.",
        "Accident Investigation Report\nDate of report: 9 June\nSummary\nOn the evening of 2 "
        "June a "
        "forklift struck a rack in hall 4. The investigation found that the brake was worn.\n"
        "Findings\nThree inspections had been missed during the period.\nRecommendations\n"
        "Inspect all brakes monthly.",
    ],
    "correspondence": [
        "Dear Ms Young,\n\nThank you for your letter of 4 June. I would like to meet you next week "
        "to talk about the garden. Please let me know if Tuesday suits you.\n\nYours sincerely,\n"
        "Paul Green",
        "From: ann@example.org\nTo: bob@example.org\nSubject: lunch\n\nHi Bob,\nare you free "
        "tomorrow? Let me know.\nBest regards\nAnn",
        "MEMORANDUM\nTO: All drivers\nFROM: P. Osei\nDATE: 4 March 1993\nSUBJECT: Parking\n\n"
        "Please be advised that the east gate will be closed on Friday. As discussed, use the west "
        "gate. Let me know if you have any questions.",
        "Sehr geehrte Frau Ott,\nvielen Dank für Ihr Schreiben vom 3. Mai. Anbei senden wir Ihnen "
        "die gewünschten Unterlagen.\nMit freundlichen Grüßen\nJ. Baum",
        "Estimado señor Vega:\nLe escribo para agradecer su visita del lunes. Adjunto los planos "
        "que usted pidió.\nAtentamente,\nLucía Ramos",
    ],
    "research": [
        "Abstract\nWe propose a method for parsing. In this paper we present experiments on a "
        "corpus [1, 2]. Our approach outperforms the baseline (Smith et al., 2014).\n"
        "1 Introduction\nRelated work\nReferences\n[1] A. Smith. Proceedings of the conference.",
        "Effects of light on seed germination\nMaterials and Methods\nSeeds were incubated at 25 "
        "°C "
        "for 7 days in 5 ml of solution. Results\nThe treated group germinated significantly "
        "faster "
        "(p < 0.05) than the control group. Discussion\nThese results suggest a role of the "
        "enzyme.",
        "Zusammenfassung\nIn dieser Arbeit untersuchen wir den Einfluss von Lärm auf den Schlaf. "
        "Die "
        "Stichprobe umfasste 120 Personen (Meyer et al., 2011).\nMethoden\nErgebnisse\nDiskussion\n"
        "Literaturverzeichnis",
    ],
    "compliance": [
        "Privacy Policy\nThis policy describes how we collect and use personal data under the "
        "GDPR. Personal information must be protected by access control. All employees must "
        "comply with this policy. Audit and incident response procedures are mandatory.",
        "Password Standard\nPurpose\nTo reduce the risk of unauthorized access.\nScope\nAll "
        "users of "
        "company systems.\nPolicy\nPasswords must be at least 14 characters and must not be "
        "shared. "
        "Enforcement\nViolations may lead to disciplinary action.\nExceptions\nMust be approved.",
        "Datenschutzerklärung\nWir verarbeiten personenbezogene Daten nach Art. 6 DSGVO. Die "
        "Einwilligung kann jederzeit widerrufen werden. Betroffene haben ein Recht auf Auskunft. "
        "Verantwortlich ist die Geschäftsleitung.",
    ],
    "other": [
        "Pancakes\nMix flour, eggs and milk. Heat the pan and pour in a ladle of batter. Turn when "
        "bubbles appear on top, and serve with lemon, sugar or honey while still hot.",
        "CURRICULUM VITAE\nName: R. Stone\nDate of birth: 4 May 1951\nNationality: Canadian\n"
        "Education\nB.Sc., University of Leeds, 1973\nWork experience\n1974-1980 "
        "Chemist\nLanguages\n"
        "English, French",
        "Harbour bridge to close for a year\nThe city's oldest bridge will close in May, the "
        'council announced on Tuesday. "We have no choice but to act now," mayor Ida Holm told '
        "reporters. Critics said the plan would hurt shops, according to the local newspaper.",
        "The lighthouse keeper climbed the stairs as he had every night. The sea was dark and the "
        "wind had risen, and she stood at the door with her eyes on the moon and never spoke.",
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
    assert found.category == category, found.reasoning
    assert found.scores[0] == (category, found.score)
    assert sum(score for _, score in found.scores) == pytest.approx(1, abs=0.01)
    assert found.confidence is None or 0 < found.confidence <= 1


def test_what_optical_recognition_misread_is_still_evidence(default):
    misread = (
        "lNV0ICE\nlnvoice nurnber 2201\nBi11 to Hartwe11\n4 cha1rs 49.00 196.00\nSubtota1 196.00\n"
        "Tota1 due 235.20\nP1ease rem1t to our acc0unt"
    )
    assert default.classify(ClassifierInput(misread, ocr=True)).category == "invoices"
    assert default.classify(ClassifierInput("A N N U A L  R E P O R T\n" * 3)).category == "reports"


def test_words_that_a_line_break_parts_are_joined(default):
    broken = (
        "This agree-\nment is made by the par-\nties hereto. The licen-\nsor and the licen-\nsee."
    )
    whole = broken.replace("-\n", "")
    assert default.classify(ClassifierInput(broken)) == default.classify(ClassifierInput(whole))


def test_accents_and_case_make_no_difference(default):
    accented = default.classify(ClassifierInput("NUMÉRO DE FACTURE 3, DATE D'ÉCHÉANCE 1 MAI"))
    bare = default.classify(ClassifierInput("numero de facture 3, date d'echeance 1 mai"))
    assert accented.scores == bare.scores


def test_the_title_counts_and_the_file_name_a_little(default):
    text = "Lorem ipsum dolor sit amet. " * 8
    bare = dict(default.classify(ClassifierInput(text)).scores)["invoices"]
    named = dict(default.classify(ClassifierInput(text, name="invoice_12.pdf")).scores)["invoices"]
    titled = default.classify(ClassifierInput(text, title="Invoice no 12: amount due, total due"))
    assert bare < named < titled.score
    assert titled.category == "invoices"


def test_a_file_of_mail_is_judged_by_what_it_brings(default):
    text = "From: a@example.org\nTo: b@example.org\nSubject: May\n\n" + SAMPLES["invoices"][0]
    mail = ClassifierInput(text, name="may.eml", media_type="message/rfc822")
    assert default.classify(mail).category == "invoices"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello",
        "xkcd qwer asdf zxcv " * 20,
        "Вчера мы ходили в лес за грибами и ягодами. " * 5,
        "昨日は森へきのこ狩りに行きました。" * 5,
        "अगले सप्ताह हम पहाड़ों पर जाएंगे। " * 5,
    ],
)
def test_thin_evidence_is_for_review_and_has_no_confidence(default, text):
    found = default.classify(ClassifierInput(text), include_reasoning=True)
    assert found.needs_review
    assert found.confidence is None
    if len(text) != 5:
        assert found.category == OTHER
        assert "little evidence" in found.reasoning


def test_strong_evidence_is_not_for_review(default):
    found = default.classify(ClassifierInput(SAMPLES["contracts"][0]))
    assert not found.needs_review
    assert found.confidence > 0.9


def test_reasoning_names_what_spoke_for_both_and_is_given_on_request_only(default):
    text = SAMPLES["invoices"][0] + "\nDear customer"
    assert default.classify(ClassifierInput(text)).reasoning is None
    reasoning = default.classify(ClassifierInput(text), include_reasoning=True).reasoning
    assert reasoning.startswith("For invoices spoke ")
    assert "'invoice no'" in reasoning
    assert "runner-up" in reasoning
    stranger = default.classify(ClassifierInput(SAMPLES["other"][1]), include_reasoning=True)
    assert "another kind of document (cv)" in stranger.reasoning


def test_reasoning_is_one_bounded_line_of_our_own_words(default):
    hostile = "\x1b[31mInvoice\x07 no\u202e invoice\x00 date <script>amount due</script>\n" * 50
    found = default.classify(ClassifierInput(hostile, title=hostile), include_reasoning=True)
    assert found.reasoning.isprintable()
    assert "script" not in found.reasoning
    assert len(found.reasoning) < 900


def test_answers_are_the_same_in_every_process():
    code = (
        "from doc_classify.classification import *\n"
        "from doc_classify.taxonomy import DEFAULT_TAXONOMY\n"
        "import sys\n"
        "c = make_classifier('embedded', DEFAULT_TAXONOMY)\n"
        "print(c.fingerprint, [c.classify(ClassifierInput(t, name='a letter.txt'), "
        "include_reasoning=True) for t in eval(sys.stdin.read())])"
    )
    texts = repr([text for texts in SAMPLES.values() for text in texts])
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=texts,
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONUTF8": "1"},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1


def test_answers_do_not_depend_on_what_was_classified_before(default):
    fresh = make_classifier("embedded", DEFAULT_TAXONOMY)
    text = ClassifierInput(SAMPLES["reports"][0])
    default.classify(ClassifierInput(" ".join(f"w{number}" for number in range(9000))))
    assert default.classify(text) == fresh.classify(text)


def test_the_fingerprint_is_that_of_the_lexicon(default, monkeypatch):
    raw = resources.files("doc_classify.classification").joinpath("lexicon.json").read_bytes()
    changed = json.loads(raw)
    changed["weights"]["strong"] += 1
    other = lexicon.parse(json.dumps(changed).encode())
    assert default.fingerprint == EmbeddedClassifier(DEFAULT_TAXONOMY).fingerprint
    monkeypatch.setattr(lexicon, "load", lambda: other)
    assert EmbeddedClassifier(DEFAULT_TAXONOMY).fingerprint != default.fingerprint


def test_the_lexicon_is_sound():
    data = lexicon.load()
    categories = set(DEFAULT_TAXONOMY.names)
    assert {kind.category for kind in data.kinds} == categories
    for kind in data.kinds:
        assert kind.cues
        assert all(cue.strip("*") for cue in kind.cues), kind.name
        assert set(kind.structure) <= structure.NAMES, kind.name
    used = {what for kind in data.kinds for what in kind.structure}
    assert used == structure.NAMES
    margins = [margin for margin, _ in data.calibration]
    values = [value for _, value in data.calibration]
    assert margins == sorted(margins)
    assert values == sorted(values)
    assert 0 < values[0] < values[-1] < 1


def test_an_unknown_classifier_is_refused_with_those_there_are():
    with pytest.raises(ConfigurationError, match=r"available: .*embedded"):
        make_classifier("oracle", DEFAULT_TAXONOMY)


def test_real_documents(default):
    if not CORPUS.is_dir():
        pytest.skip("the labelled documents are not here")
    files = sorted((CORPUS / "office7").rglob("*.txt"))
    right = sum(
        default.classify(ClassifierInput(file.read_text("utf-8", "replace"))).category
        == file.parent.name
        for file in files
    )
    assert right / len(files) > 0.86


def test_real_scanned_pages_by_the_names_of_their_kinds():
    if not CORPUS.is_dir():
        pytest.skip("the labelled documents are not here")
    files = sorted((CORPUS / "tobacco").rglob("*.txt"))[::3]
    classifier = make_classifier(
        "embedded", Taxonomy.from_names(sorted({file.parent.name for file in files}))
    )
    right = sum(
        classifier.classify(ClassifierInput(file.read_text("utf-8", "replace"))).category
        == file.parent.name
        for file in files
    )
    assert right / len(files) > 0.55
