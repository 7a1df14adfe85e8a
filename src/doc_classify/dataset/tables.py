"""Tables of the kinds that documents hold, with figures that add up where a reader would add."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import cache
from importlib.resources import files

from doc_classify.dataset.facts import Facts
from doc_classify.dataset.grammar import pick, some
from doc_classify.dataset.model import Table


@cache
def _labels() -> dict[str, dict[str, str]]:
    text = files("doc_classify.dataset").joinpath("content/tables.toml").read_text("utf-8")
    return tomllib.loads(text)


def make_table(name: str, facts: Facts, rows: int) -> Table:
    """The table called ``name`` with about ``rows`` rows."""
    return _TABLES[name](facts, max(2, rows))


def _words(facts: Facts, name: str) -> list[str]:
    labels = _labels()
    return facts.say(labels[facts.language].get(name) or labels["en"][name]).split(", ")


def _items(facts: Facts, rows: int) -> Table:
    rng, lists = facts.rng, facts.words
    factor = facts.amount() / rows
    body, net = [], 0.0
    for position in range(1, rows + 1):
        quantity = rng.randint(1, 24)
        price = round(max(0.05, factor * rng.uniform(0.1, 1.8) / quantity), 2)
        amount = round(quantity * price, 2)
        net += amount
        name = pick(rng, lists["item"])
        if rng.random() < 0.5:
            name += f" {pick(rng, 'ABCDEKMX')}{rng.randint(1, 900)}"
        body.append(
            (
                str(position),
                name,
                f"{quantity} {pick(rng, lists['unit'])}",
                facts.number(price, 2),
                facts.number(amount, 2),
            )
        )
    rate = pick(rng, (0.2, 0.19, 0.07, 0.25, 0.055))
    tax = round(net * rate, 2)
    subtotal, vat, total = _words(facts, "total")
    body += [
        ("", subtotal, "", "", facts.number(net, 2)),
        ("", f"{vat} {facts.number(rate * 100, 1)}%", "", "", facts.number(tax, 2)),
        ("", total, "", "", facts.money(net + tax)),
    ]
    return Table(tuple(_words(facts, "items")), tuple(body))


def _timesheet(facts: Facts, rows: int) -> Table:
    rng = facts.rng
    rate = pick(rng, (85, 120, 150, 180, 240, 310))
    body, total = [], 0.0
    for _ in range(rows):
        hours = rng.randint(1, 32) / 4
        total += hours * rate
        body.append(
            (
                facts.date_near(-60, -1),
                facts.say(
                    "[Call with {p2}|Draft of {topic}|Meeting in {city}|Review|Travel|Advice]"
                ),
                facts.number(hours, 2),
                facts.number(rate, 2),
                facts.number(hours * rate, 2),
            )
        )
    body.append(("", _words(facts, "total")[2], "", "", facts.money(total)))
    return Table(tuple(_words(facts, "timesheet")), tuple(body))


def _kpis(facts: Facts, rows: int) -> Table:
    body = []
    for name in some(facts.rng, _words(facts, "kpi"), min(rows, 3), rows):
        before = facts.rng.randint(20, 90_000)
        now = round(before * facts.rng.uniform(0.7, 1.4))
        change = f"{(now / before - 1) * 100:+.1f}%"
        body.append((name, facts.number(now), facts.number(before), change))
    return Table(tuple(_words(facts, "kpis")), tuple(body))


def _schedule(facts: Facts, rows: int) -> Table:
    body = [
        (
            facts.date_near(-30, 60),
            pick(facts.rng, _words(facts, "step")),
            facts(pick(facts.rng, ("p1", "p2", "p3", "dept"))),
            pick(facts.rng, _words(facts, "state")),
        )
        for _ in range(rows)
    ]
    return Table(tuple(_words(facts, "schedule")), tuple(body))


def _results(facts: Facts, rows: int) -> Table:
    body = [
        (name, facts("n3"), facts("dec"), facts("dec"), facts.say("{pval}"))
        for name in some(facts.rng, _words(facts, "group"), 2, rows)
    ]
    return Table(tuple(_words(facts, "results")), tuple(body))


def _findings(facts: Facts, rows: int) -> Table:
    body = [
        (
            f"{facts.rng.randint(4, 18)}.{number}",
            facts.rng.choice(facts.words["ctopic"]),
            pick(facts.rng, _words(facts, "rating")),
            facts.date_near(10, 120),
        )
        for number in range(1, rows + 1)
    ]
    return Table(tuple(_words(facts, "findings")), tuple(body))


def _checks(facts: Facts, rows: int) -> Table:
    body = []
    for _ in range(rows):
        yes = facts.rng.random() < 0.7
        question = facts.say(
            "[Are records kept|Is staff trained|Has a risk assessment been made|Is access limited]"
            " [for|with regard to] "
        ) + pick(facts.rng, facts.words["ctopic"])
        remark = facts.say("[|see {ref}|by {date2}|{p1.last}]")
        body.append((f"{question}?", "x" if yes else "", "" if yes else "x", remark))
    return Table(tuple(_words(facts, "checks")), tuple(body))


def _stock(facts: Facts, rows: int) -> Table:
    names = facts.words["thing"] + facts.words["dish"] + facts.words["first"]
    body = [
        (name, facts("n1"), facts("small"), facts(pick(facts.rng, ("city", "time", "month"))))
        for name in some(facts.rng, names, rows, rows)
    ]
    return Table(tuple(_words(facts, "stock")), tuple(body))


def _parts(facts: Facts, rows: int) -> Table:
    body = [(facts("n2"), pick(facts.rng, facts.words["thing"]), facts("n1")) for _ in range(rows)]
    return Table(tuple(_words(facts, "parts")), tuple(body))


_TABLES: dict[str, Callable[[Facts, int], Table]] = {
    "items": _items,
    "timesheet": _timesheet,
    "kpis": _kpis,
    "schedule": _schedule,
    "results": _results,
    "findings": _findings,
    "checks": _checks,
    "stock": _stock,
    "parts": _parts,
}
TABLE_NAMES = frozenset(_TABLES)
