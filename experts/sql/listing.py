"""The hooks of the grammars that write names out, SELECT first: what SELECT lists is brought by FROM.

Only the queries that are open have rules; what they hold already, and what is closed, is repeated word for word. So a
rule speaks of one place in the text, and :mod:`experts.sql.bringing` decides there what may be named and read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache

from expert_cli.grammar.bind import NEVER
from experts.sql.binding import POINTED
from experts.sql.bringing import MOST_BROUGHT, Catalogue, Needs, key, weighed
from experts.sql.names import MOST_NAMED, WIDEST, NamesBinding, _verbatim
from experts.sql.outline import Open, Outline, Reading
from experts.sql.pieces import choice, literally
from experts.sql.scopes import WORD, Source
from experts.sql.windows import anywhere

_SOURCE = re.compile(r" FROM (.+?) (?:LEFT |RIGHT |FULL |CROSS )?JOIN $")  # the first of two
_ORDER = {1: '" ORDER BY " "1" direction?', **{width: f"ordinals-{width}" for width in range(2, WIDEST + 1)}}


Form = str | tuple[str, str]
"""A text, and the rule that follows it, if any."""


class ListingBinding:
    """The hooks for one question or database, those of ``names``, but SELECT first."""

    def __init__(self, names: NamesBinding) -> None:
        self.names = names
        self._catalogues: dict[tuple[Source, ...], Catalogue] = {}

    def catalogue(self, named: tuple[Source, ...]) -> Catalogue:
        """What can be read beside the queries ``named`` in WITH."""
        if named not in self._catalogues:
            self._catalogues[named] = Catalogue(self.names.tables, self.names.taken, named)
        return self._catalogues[named]

    @lru_cache(maxsize=1024)  # noqa: B019 - a binding lives as long as its question
    def state(self, written: str) -> Outline:
        """The queries that are open."""
        return Reading(self.catalogue, written).outline()

    def rules(self, state: Outline) -> Mapping[str, str]:
        """The hook bodies of ``state``."""
        rules = {**self.names.fixed, **dict.fromkeys((*POINTED, "alone"), NEVER)}
        rules["begin"] = self._begin(state)
        for place in range(len(state.opened)):
            rules |= _Rules(self.catalogue(state.named), state, place).bodies()
        return rules

    def _begin(self, state: Outline) -> str:
        """A WITH clause as far as it is written, word for word, and how it goes on."""
        if state.naming:
            return 'written-s0 ")" nothing'
        name = self.names.free_name("cte{}", len(state.named) + 1, {source.name for source in state.named})
        query = f'{literally(name)} " AS " "(" "SELECT " nothing'
        if not state.lead:
            return f'written-s0 | "WITH " {query}'
        if state.opened[0].arms or state.opened[0].text:
            return "written-s0"
        more = f' | ", " {query}' if len(state.named) < MOST_NAMED else ""
        return f'{literally(state.lead)} (" " written-s0{more})'


class _Rules:
    """The bodies of one open query: ``-s0``, ``-s2`` … from the outermost, and ``-s1``, ``-s3`` … for their ON."""

    def __init__(self, catalogue: Catalogue, state: Outline, place: int) -> None:
        self.catalogue = catalogue
        self.lead = state.lead if state.naming else f"{state.lead} " if state.lead else ""
        self.opened = opened = state.opened
        self.place = place
        self.query = opened[place]
        self.child = opened[place + 1] if place + 1 < len(opened) else None
        self.label, self.on = f"s{2 * place}", f"s{2 * place + 1}"
        self.below = f"within-s{2 * place + 2}"
        self.windowed = anywhere(WORD.findall(self.query.text))

    def bodies(self) -> dict[str, str]:
        label, query = self.label, self.query
        arm = self._brought() if query.text else self._listed()
        begun = f"{self._begun()} ({arm})" if self._begun() else arm
        rules = {
            f"{'within' if self.place else 'written'}-{label}": begun,
            f"from-{label}": self._subqueries(),
            f"inward-{label}": NEVER if query.kind == "sub" and not query.sorting else '""',
            f"loose-{label}": NEVER if self.windowed else '""',
        }
        if query.text:
            own = list(_own(query.all()))
            around = self._around(query.all())
            rules[f"own-column-{label}"] = choice(own)
            every = (f"own-column-{label}" if own else "", *around)
            rules[f"column-{label}"] = " | ".join(filter(None, every)) or NEVER
            rules[f"everything-{label}"] = NEVER
            # a bare name in ON speaks of later sources too
            rules[f"own-column-{self.on}"] = choice(one for one in own if _qualifier(one))
        else:
            columns = _menu(self._forms(query)) or NEVER
            rules |= {f"own-column-{label}": columns, f"column-{label}": f"own-column-{label}"}
            stars = self.catalogue.stars(query.needs), self.catalogue.stars(query.before)
            rules[f"everything-{label}"] = _menu(_grown(query, *stars)) or NEVER
        return rules

    def _begun(self) -> str:
        """What is written of the query and can no longer change, or nothing."""
        text = self.query.arms + self.query.text
        if self.place:  # another query may begin with the same words
            return _verbatim(text)
        return literally(self.lead + text) if text or self.lead[-1:] == "(" else ""

    # the list, until FROM comes

    def _listed(self) -> str:
        label, query = self.label, self.query
        item = f"item-{label}"
        if query.kind == "sub" or query.width:
            items = ' ", " '.join([item] * max(query.width, 1))
        else:
            items = f'({item} | everything-{label}) (", " ({item} | everything-{label}))*'
        if query.missing:
            one = f"(item-{label} | everything-{label})"
            items = f'({one} ", ")* figure-output-{label} " AS " ({choice(sorted(query.missing))}) nothing'
        else:
            items += ' " FROM " nothing'
        arm = f'"SELECT " "DISTINCT "? {items}'
        alone = query.kind != "sub" and not query.width and not query.wanted and query.needs == Needs()
        return f"{arm} | constants-{label}" if alone else arm

    def _forms(self, query: Open) -> Iterator[Form]:
        return _grown(query, self.catalogue.forms(query.needs), self.catalogue.forms(query.before))

    # FROM and what follows it

    def _brought(self) -> str:
        query, readable = self.query, self.catalogue
        others = self._sources(query.sources)
        if self.child and self.child.kind == "derived":
            alias = readable.next_derived(query.sources, query.needs)
            slot = f'"(" {self.below} ")" " AS " {literally(alias)} nothing'
        elif query.derived and not query.source:
            alias = readable.next_derived(query.sources, query.needs)
            slot = f'{_verbatim(query.derived)} " AS " {literally(alias)} nothing'
        elif query.source:
            slot = f"{_verbatim(query.written)} {self._placed()} ({self._after()}){others and ' | ' + others}"
        else:
            slot = others
        return f"({slot})"

    def _placed(self) -> str:
        """The condition of the source that was joined last."""
        query = self.query
        if query.join != "ON":
            return ""
        using = ""
        if query.source and not query.star:
            before = [one for source in query.sources for one in weighed(source)]
            shared = [column for column in query.source.columns if before.count(key(column)) == 1]
            using = f' | " USING (" ({choice(shared)}) ")"' if shared else ""
        return f'(" ON " on-{self.on}{using})'

    def _after(self) -> str:
        """What follows the sources: more of them, and the rest once they bring all that is needed."""
        query, have = self.query, self.query.all()
        options = [self._tail()] if self.catalogue.brings(have, query.needs) else []
        if len(have) < MOST_BROUGHT and self._any(have):
            options.append("(join-kind | cross-kind) nothing")
        return " | ".join(options)

    def _any(self, have: tuple[Source, ...]) -> bool:
        needs = self.query.needs
        return bool(self.catalogue.candidates(have, needs) or self.catalogue.next_derived(have, needs))

    def _sources(self, have: tuple[Source, ...]) -> str:
        """Every source that may stand after ``have``."""
        needs = self.query.needs
        candidates = self.catalogue.candidates(have, needs)
        # what is written in full goes on by itself
        options = [f"{_verbatim(text)} nothing" for text in candidates if text != self.query.written]
        if self.catalogue.next_derived(have, needs):
            options.append('"(" "SELECT " nothing')
        return " | ".join(options)

    def _tail(self) -> str:
        query, label = self.query, self.label
        where, group, width = f"where-{label}?", f"group-{label}?", query.width or query.items
        ending = f"ending-{width}-{label}" if 0 < width <= WIDEST else f"ending-{label}"
        if query.whole and not query.arms and (twin := self._twin()):
            again = f'set-operator "SELECT " "DISTINCT "? "*" {twin} {where} {group}'
            return f"{where} ({ending} | {group} ({again})+ limit?)"
        if not 0 < width <= WIDEST:
            return f"{where} {ending}"
        another, grouped = 'set-operator "SELECT " nothing', f"group-{label}" if self.windowed else group
        if query.arms:
            return f"{where} {grouped} ({another} | ({_ORDER[width]})? limit?)"
        return f"{where} ({ending} | {grouped} {another})"

    def _twin(self) -> str:
        """FROM with the same sources once more, where they are few and no query."""
        written = [*_SOURCE.findall(self.query.text), self.query.written]
        have = self.query.all()
        if any(source.name in self.catalogue.derived for source in have) or len(written) != len(have) or len(have) > 2:
            return ""
        every = [one for source in have for one in weighed(source)]
        if len(have) > 1 and len(set(every)) < len(every):  # USING may have made one column of two
            return ""
        first, *rest = map(_verbatim, written)
        joined = f' (join-kind {rest[0]} " ON " on-{self.on} | cross-kind {rest[0]})' if rest else ""
        return f'" FROM " {first}{joined}'

    def _subqueries(self) -> str:
        """The subqueries that stand in this query: those that are closed, the one that is open, another one."""
        options = [_verbatim(text) for text in dict.fromkeys(self.query.closed)]
        open_ = self.child is not None and self.child.kind == "sub"
        return " | ".join([*options, self.below if open_ else '"SELECT " nothing'])

    def _around(self, own: tuple[Source, ...]) -> Iterator[str]:
        """Columns of the queries around a subquery: of those that have FROM, then of the first one that has not."""
        hidden, bare = {source.name for source in own}, {one for source in own for one in weighed(source)}
        place = self.place
        # the columns of this query's own keys are never of those around it
        while self.opened[place].kind == "sub" and (place == self.place or not self.opened[place].sorting):
            place -= 1
            outer = self.opened[place]
            if not outer.text:
                forms = self._forms(outer)
                yield _menu(form for form in forms if _qualifier(form) and _qualifier(form) not in hidden)
                return
            yield _menu(
                form
                for form in _own(outer.all())
                if (_qualifier(form) not in hidden if _qualifier(form) else key(form) not in bare)
            )
            hidden |= {source.name for source in outer.all()}
            bare |= {one for source in outer.all() for one in weighed(source)}


def _grown(query: Open, forms: Collection[str], before: Collection[str]) -> Iterator[Form]:
    """``forms``, and those of ``before`` that the last column may still become."""
    yield from forms
    if query.last:
        yield from ((form, "nothing") for form in before if form.startswith(query.last) and form not in {*forms})


def _own(sources: tuple[Source, ...]) -> Iterator[str]:
    """The columns of ``sources`` as they may be written: with their source, and bare where one alone has them."""
    every = [one for source in sources for one in weighed(source)]
    for source in sources:
        yield from (f"{source.name}.{column}" for column in source.columns)
        yield from (one for one in source.columns if every.count(key(one)) == 1 and Catalogue.plain(one))


def _qualifier(form: Form) -> str:
    """The source that a column is written with, if any."""
    text = form if isinstance(form, str) else form[0]
    if text[:1] in '"`':
        end = _closing(text)
        return text[:end] if end < len(text) else ""
    return text.partition(".")[0] if "." in text else ""


def _closing(text: str) -> int:
    """Where the quoted name ends that ``text`` begins with."""
    mark, place = text[0], 1
    while place < len(text):
        if text[place] == mark:
            if text[place + 1 : place + 2] != mark:
                return place + 1
            place += 1
        place += 1
    return place


def _menu(forms: Iterable[Form]) -> str:
    """Alternatives."""
    texts = (literally(form) if isinstance(form, str) else f"{literally(form[0])} {form[1]}" for form in forms)
    return " | ".join(dict.fromkeys(texts))
