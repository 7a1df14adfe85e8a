"""The embedded classifier on categories of the user's own, alone and beside default ones."""

import pytest

from doc_classify.classification import ClassifierInput, make_classifier
from doc_classify.taxonomy import Category, Taxonomy

LETTER = (
    "Dear Ms Young,\nThank you for your letter. I would like to meet you next week. Please let me "
    "know if Tuesday suits you.\nYours sincerely,\nPaul Green"
)
MEMO = "MEMORANDUM\nTO: All drivers\nFROM: P. Osei\nSUBJECT: Parking\nPlease be advised of this."
INVOICE = "INVOICE\nInvoice no. 2201\nBill to: Hartwell\nSubtotal 196.00\nTotal due 235.20"
CV = (
    "CURRICULUM VITAE\nDate of birth: 4 May 1951\nNationality: Canadian\nEducation\nB.Sc., "
    "University of Leeds\nWork experience\nLanguages\nEnglish"
)
CRICKET = "The team won the match and its players lead the tournament, the coach said. " * 3


def answer(taxonomy, text, **more):
    return make_classifier("embedded", taxonomy).classify(ClassifierInput(text, **more))


def names(*given):
    return Taxonomy.from_names(given)


@pytest.fixture(scope="module")
def topics():
    return Taxonomy(
        (
            Category("sport", "Matches, teams, players and tournaments."),
            Category("cooking", "Recipes and kitchens.", keywords=("baking powder",)),
            Category("space", examples=("The rocket reached orbit around the planet Mars.",)),
            Category("other"),
        )
    )


@pytest.mark.parametrize(
    ("category", "text"),
    [
        ("sport", CRICKET),
        ("cooking", "Add the baking powder, then bring the recipe to your own kitchen. " * 3),
        ("space", "A second rocket left for orbit; Mars is the planet it will study. " * 3),
        ("other", "The committee discussed road taxes with the trade union at length. " * 3),
    ],
)
def test_topics_are_known_by_description_keywords_and_examples(topics, category, text):
    found = answer(topics, text)
    assert found.category == category
    assert found.confidence is None  # nothing was calibrated for these categories
    assert 0 <= found.score <= 1


def test_other_forms_of_a_word_count_and_compounds_too():
    taxonomy = Taxonomy(
        (Category("politics", "Governments and elections."), Category("Verkehr", "Straßen, Züge"))
    )
    assert answer(taxonomy, "The governing party was elected again. " * 4).category == "politics"
    assert answer(taxonomy, "Der Nahverkehr stockt, die Hauptstraßen sind voll. " * 4).category == (
        "Verkehr"
    )


def test_a_name_alone_is_enough():
    taxonomy = names("gardening", "astronomy")
    text = "A book on astronomy for those who have a telescope. " * 4
    assert answer(taxonomy, text).category == "astronomy"


@pytest.mark.parametrize(
    ("first", "second", "text", "expected"),
    [
        ("請求書", "契約書", "本契約書は当事者間の合意です。", "契約書"),
        ("счета", "договоры", "Договоры подписаны обеими сторонами вчера днём. " * 3, "договоры"),
        ("फल", "वाहन", "यह वाहन नया है और वाहन तेज़ चलता है। " * 3, "वाहन"),
        ("فواتير", "عقود", "هذه عقود جديدة بين الطرفين وقعت أمس. " * 3, "عقود"),
        ("ภาษี", "สัญญา", "เอกสารนี้คือสัญญาระหว่างสองฝ่าย" * 3, "สัญญา"),
    ],
)
def test_any_script(first, second, text, expected):
    assert answer(names(first, second), text).category == expected


@pytest.mark.parametrize(
    ("category", "text"),
    [("Letters", LETTER), ("memos", MEMO), ("CV", CV), ("Rechnungen", INVOICE)],
)
def test_a_category_that_names_a_kind_of_document_brings_its_cues(category, text):
    found = answer(names("Letters", "memos", "CV", "Rechnungen"), text)
    assert found.category == category
    assert found.confidence is None


def test_a_kind_named_among_other_words():
    taxonomy = names("supplier_invoices", "job applications", "other")
    assert answer(taxonomy, INVOICE).category == "supplier_invoices"
    assert answer(taxonomy, CV).category == "job applications"
    assert answer(taxonomy, MEMO).category == "other"


def test_capital_letters_and_the_plural_make_no_difference():
    capital = names("Invoices", "Correspondence", "Employment Contracts", "Other")
    assert answer(capital, INVOICE).category == "Invoices"
    assert answer(capital, MEMO).category == "Correspondence"
    assert answer(capital, CV).category == "Other"
    text = "EMPLOYMENT AGREEMENT\nThis Agreement is made by and between the parties hereto. " * 3
    assert answer(capital, text).category == "Employment Contracts"


def test_a_kind_with_a_category_of_its_own_is_taken_from_the_larger_one():
    receipt = "CORNER STORE\nReceipt no 193\nTea 2.40\nTOTAL 8.45\nCASH 10.00\nCHANGE 1.55"
    taxonomy = names("invoices", "receipts", "correspondence", "memos", "other")
    assert answer(taxonomy, receipt).category == "receipts"
    assert answer(taxonomy, INVOICE).category == "invoices"
    assert answer(taxonomy, MEMO).category == "memos"
    assert answer(taxonomy, LETTER).category == "correspondence"


def test_of_some_of_the_default_categories_what_fits_none_is_other():
    taxonomy = names("invoices", "contracts", "other")
    assert answer(taxonomy, INVOICE).category == "invoices"
    assert answer(taxonomy, LETTER).category == "other"
    assert answer(taxonomy, CV).category == "other"


def test_without_other_something_is_chosen_and_flagged():
    found = answer(names("invoices", "contracts"), "Lorem ipsum dolor sit amet. " * 9)
    assert found.category in {"invoices", "contracts"}
    assert found.needs_review


def test_default_and_own_categories_beside_each_other():
    taxonomy = Taxonomy(
        (
            *names("invoices", "correspondence").categories,
            Category("sport", "Matches, teams, players and tournaments."),
            Category("other"),
        )
    )
    assert answer(taxonomy, INVOICE).category == "invoices"
    assert answer(taxonomy, LETTER).category == "correspondence"
    assert answer(taxonomy, CRICKET).category == "sport"
    assert answer(taxonomy, "Pour the batter into the pan and turn it. " * 6).category == "other"


def test_keywords_and_descriptions_add_to_a_default_category():
    taxonomy = Taxonomy(
        (
            Category("reports", "Dossiers of the weather station.", keywords=("barometer",)),
            *names("invoices", "other").categories,
        )
    )
    text = "The barometer fell at the weather station; barometer readings follow. " * 3
    assert answer(taxonomy, text).category == "reports"


def test_many_categories_and_odd_names_do_no_harm():
    taxonomy = names(*(f"no. {number} *" for number in range(900)), "***", "日", "a*b")
    classifier = make_classifier("embedded", taxonomy)
    found = classifier.classify(ClassifierInput(LETTER), include_reasoning=True)
    assert found.category in taxonomy.names
    assert len(found.scores) == 903


def described(**categories):
    return Taxonomy(tuple(Category(*pair) for pair in categories.items()))


@pytest.mark.parametrize(
    ("taxonomy", "texts"),
    [
        (
            described(
                Wohnen="Mietverträge, Nebenkosten, Schreiben der Hausverwaltung",
                Gesundheit="Arztbriefe, Befunde, Krankenkasse, Medikamente",
                other="",
            ),
            {
                "Wohnen": "Anbei die Nebenkostenabrechnung, wie es der Mietvertrag vorsieht. ",
                "Gesundheit": "Der Befund liegt vor; die Krankenkasse zahlt das Medikament. ",
                "other": "Das Konzert des Chors findet am Sonntag statt, alle sind willkommen. ",
            },
        ),
        (
            described(
                impôts="Déclarations de revenus, avis d'imposition, taxe foncière",
                école="Bulletins scolaires, inscriptions, cantine",
            ),
            {
                "impôts": "Votre avis d'imposition; la taxe foncière est à payer en octobre. ",
                "école": "L'élève est inscrit à la cantine; le bulletin scolaire suivra. ",
            },
        ),
        (
            described(
                vivienda="Contratos de alquiler, recibos de la comunidad, hipotecas",
                empleo="Nóminas, contratos de trabajo, vida laboral",
            ),
            {
                "vivienda": "El recibo del alquiler se cobrará en marzo; la hipoteca sigue igual. ",
                "empleo": "Se adjunta la nómina del mes con el desglose del salario laboral. ",
            },
        ),
        (
            described(合同="租赁合同、买卖协议", 发票="发票、收据、付款", other=""),
            {
                "合同": "本租赁合同由甲乙双方签订，甲方将房屋出租给乙方，租期两年。",
                "发票": "增值税发票，付款金额为三千元，收据编号如下。",
                "other": "今天天气很好，我们去公园散步，孩子们很高兴。",
            },
        ),
        (
            described(عقود="اتفاقيات الإيجار والبيع", فواتير="المبالغ المستحقة والدفع"),
            {
                "عقود": "هذا عقد إيجار بين الطرفين وفق اتفاقيات الإيجار. ",
                "فواتير": "المبالغ المستحقة للدفع في هذه الورقة ألف ريال. ",
            },
        ),
        (
            described(tenders="Invitations to bid, calls for tender, procurement", other=""),
            {
                "tenders": "Call for tender: the city invites bids; procurement ends in May. ",
                "other": "The cat sat on the mat and looked at the birds all day long. ",
            },
        ),
    ],
    ids=["German", "French", "Spanish", "Chinese", "Arabic", "one category and other"],
)
def test_categories_described_in_the_language_of_the_documents(taxonomy, texts):
    for category, text in texts.items():
        assert answer(taxonomy, text * 3).category == category


@pytest.mark.parametrize("text", ["", " \n\f\x00", "x", "1 2 3", "。。。", "\ud800"])
def test_what_says_nothing_is_for_review_in_any_taxonomy(text, topics):
    for taxonomy in (topics, names("invoices", "other"), names("Verträge", "Briefe")):
        found = answer(taxonomy, text)
        assert found.needs_review
        assert found.confidence is None
        assert found.category == ("other" if "other" in taxonomy.names else taxonomy.names[0])


def test_two_hundred_categories():
    taxonomy = Taxonomy(
        (
            *(Category(f"topic {number}", f"alpha{number} beta{number}") for number in range(200)),
            Category("other"),
        )
    )
    text = "Words that stand in no description at all, and then some more of them. "
    assert answer(taxonomy, text + "alpha77 beta77").category == "topic 77"
    assert answer(taxonomy, text).category == "other"
