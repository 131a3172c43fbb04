"""The hooks of the grammars that know what kind a value is: ``sql-{postgres,duckdb,mysql}.gbnf``.

As in :mod:`experts.sql.names`, what a query can name is read from the text as it is written. Here every column has a
kind as well, a query that is grouped sees its keys alone, and the arms of a set operation have the kinds of the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache

from expert_cli.grammar.bind import NEVER
from experts.sql.kinds import (
    COMPARED,
    COMPUTED,
    GIVEN,
    KINDS,
    MARK,
    NUMBER,
    OTHER,
    TEXT,
    TIME,
    TRUTH,
    WHOLE,
    comparable,
    enumerated,
)
from experts.sql.names import MOST_NAMED, MOST_SOURCES, NOTHING, OUTPUTS, Names, Seen
from experts.sql.pieces import choice, distinct_on, equal, literally, using, verbatim
from experts.sql.typed_reading import read
from experts.sql.typed_scopes import Column, Event, Scope, Source

_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_ARM = '" UNION" nothing'
_ENDED = '")" carried'

State = tuple[Event, ...]

_LITERAL = {
    f"{MARK}uuid": "uuid",
    f"{GIVEN}{NUMBER}": "numeral",
    f"{GIVEN}{TEXT}": "string",
    f"{GIVEN}{TIME}": "instant",
    f"{GIVEN}{TRUTH}": "truth-value",
}
"""The rules of literals that a mark is compared with."""


class TypedBinding(Names):
    """The hooks for one database, or the part of it that a question is linked to.

    Args:
        tables: by table name, column names and their kinds.
        keys: by table name, the columns of its key, where the dialect knows a row's other columns by it.
        values: literals that the question offers.
        quoted: writes a name as an identifier of the dialect.
        literal: writes a value as a literal of the dialect.
        free: whether literals may also be made up.
        full: whether the dialect has FULL JOIN.
        lateral: whether it has LATERAL.

    Raises:
        ContextError: there is no table.
    """

    def __init__(
        self,
        tables: Mapping[str, Mapping[str, str]],
        keys: Mapping[str, Collection[str]],
        values: Iterable[str | int | float],
        *,
        quoted: Callable[[str], str],
        literal: Callable[[str | int | float], str],
        free: bool,
        full: bool,
        lateral: bool,
    ) -> None:
        super().__init__({name: tuple(columns) for name, columns in tables.items()}, quoted)
        self.columns = {
            quoted(name): tuple(Column(quoted(one), kind, one in keys.get(name, ())) for one, kind in columns.items())
            for name, columns in tables.items()
        }
        self.full, self.lateral, self.literal = full, lateral, literal
        self.root = Scope()
        values = list(values)
        texts = [value for value in values if isinstance(value, str)]
        numbers = [value for value in values if not isinstance(value, str) and value >= 0]
        self.fixed = {
            "offered-number": choice(map(literal, numbers)),
            "offered-text": choice(literal(text) for text in texts if "\\" not in text),
            "offered-time": " | ".join(verbatim(f"DATE '{text}'") for text in texts if _DATE.fullmatch(text)) or NEVER,
            "offered-count": choice(str(value) for value in numbers if isinstance(value, int) and value > 0),
            "free": '""' if free else NEVER,
            "name": choice(OUTPUTS),
            "subquery-own": NEVER,
            "nothing": NOTHING,
            "carried": '(" " | ", ") nothing',
            "later": '(" WHERE " | " GROUP BY " | " SELECT ") nothing',
            "placed": '(" ON " | " USING (") nothing',
            "beside": '(" SELECT " | " JOIN ") nothing',
            "more": '(" ORDER BY " | set-operator) nothing',
        }

    @lru_cache(maxsize=1024)  # noqa: B019 - a binding lives as long as its question
    def state(self, written: str) -> State:
        """What has come into view so far."""
        return read(self.columns, written)

    def rules(self, state: State) -> Mapping[str, str]:
        """The hook bodies of ``state``."""
        rules = dict(self.fixed)
        rules["begin"] = self._begin(state)
        known = {self.root: None} | {event.scope: None for event in state}
        contexts = dict.fromkeys(_outside(scope) for scope in known) | dict.fromkeys(_inside(scope) for scope in known)
        tables = self.read(name for scope in known for name in scope.names())
        rules["unread"] = self.unread(tables)
        seen = Seen(state, frozenset(event.scope for event in state if event.kind == "joined"), tables)
        for scope in contexts | known:
            rules |= self._scope(scope, seen)
        return rules

    def _scope(self, scope: Scope, seen: Seen[Event, Scope]) -> dict[str, str]:
        label = self.label(scope)
        grouped = scope.keys is not None
        rules = {
            f"star-{label}": NEVER if grouped else self._star(scope, compared=False),
            f"same-star-{label}": NEVER if grouped else self._star(scope, compared=True),
            f"grouping-{label}": '""' if grouped else NEVER,
            f"ungrouped-{label}": NEVER if grouped else '""',
            f"group-key-{label}": " | ".join(verbatim(key.name) for key in scope.keys or ()) or NEVER,
            f"from-{label}": self._from(scope, seen),
            f"again-{label}": f"from-{self.label(_outside(scope))}",
            f"grouped-{label}": self._grouped(scope, seen),
            f"listed-{label}": self._listed(scope, seen),
            f"typed-{label}": self._typed(scope, label),
            f"ordinals-{label}": choice(str(number) for number, _ in enumerate(scope.arms, 1)),
            f"others-{label}": self._others(scope, seen),
        }
        for prefix, columns in (("", scope.visible()), ("own-", scope.own())):
            for kind in (*KINDS, MARK.strip()):
                these = (one.name for one in columns if kind in _hooks(one.kind))
                rules[f"{prefix}{kind}-{label}"] = " | ".join(map(verbatim, dict.fromkeys(these))) or NEVER
            rules[f"{prefix}marked-{label}"] = self._marked(columns)
        if scope in seen.widened:
            rules[f"joined-{label}"] = self._joined(scope, seen)
        return rules

    def _marked(self, columns: Iterable[Column]) -> str:
        """Comparisons of each type that is compared with itself alone: its columns, and the words that it has."""
        named: dict[str, dict[str, None]] = {}
        for column in columns:
            if column.kind.startswith(MARK):
                named.setdefault(column.kind, {})[verbatim(column.name)] = None
        options = []
        for kind, names in named.items():
            own = " | ".join(names)
            words = [verbatim(self.literal(word)) for word in enumerated(kind) if "\\" not in word]
            words += [_LITERAL[kind]] if kind in _LITERAL else []
            word = " | ".join(words)
            listed = f' | " NOT"? " IN (" ({word}) (", " ({word}))* ")"' if word else ""
            options.append(f'({own}) ((" = " | " <> " | " != ") ({" | ".join([own, *words])}){listed})')
        return " | ".join(options) or NEVER

    @staticmethod
    def _star(scope: Scope, *, compared: bool) -> str:
        sources = [one for one in scope.sources if not compared or all(comparable(each.kind) for each in one.columns)]
        whole = ["*"] if sources and len(sources) == len(scope.sources) else []
        return choice(whole + [f"{source.name}.*" for source in sources])

    def _begin(self, state: State) -> str:
        """A WITH clause as far as it is written, word for word, and how it goes on."""
        opened = [event for event in state if event.kind in ("named", "arm")]
        root = self.label(self.root)
        if not opened:
            name = literally(self._cte(self.root) + " AS (")
            first = f"(table-query-{root} {_ENDED} | recursive-first-{root} {_ARM})"
            queries = f'"WITH " ({name} table-query-{root} ")" carried | "RECURSIVE " {name} {first})'
            return f"query-{root} | {queries}"
        last = opened[-1]
        onward = "carried" if len(last.scope.named) + 1 < MOST_NAMED else '" " nothing'
        label = self.label(last.scope)
        if last.kind == "arm":
            arm = f"from-recursive-arm-{label}"
            return f'{literally(last.text)} ((" UNION " | " UNION ALL ") {arm} ")" {onward} | ")" {onward})'
        more = ""
        if len(last.scope.named) < MOST_NAMED:
            arm = f" | recursive-first-{label} {_ARM}" if last.text.startswith("WITH RECURSIVE ") else ""
            body = f'(table-query-{label} ")" {onward}{arm})'
            more = f" | {literally(', ')} {literally(self._cte(last.scope) + ' AS (')} {body}"
        return f'{literally(last.text)} (" " query-{label}{more})'

    def _cte(self, scope: Scope) -> str:
        return self.free_name("cte{}", len(scope.named) + 1, {source.name for source in scope.named})

    def _from(self, scope: Scope, seen: Seen[Event, Scope]) -> str:
        """FROM in a subquery of ``scope``, or in a query that nothing is around; in an arm that reads itself, that."""
        context = _inside(scope)
        if context.reads is not None:
            wider = context.joined(context.reads)
            then = f"joined-{self.label(wider)}" if wider in seen.widened else "beside"
            return f"{literally('FROM ' + context.reads.name)} {then}"
        known = self._known(context, seen, "{source} {joined}")
        return f'"FROM " ({" | ".join([*known, f"others-{self.label(context)} beside"])})'

    def _joined(self, scope: Scope, seen: Seen[Event, Scope]) -> str:
        """What may follow the sources of ``scope``: another source, or the next clause once that is written."""
        begun = any(event.kind == "begun" and event.scope == scope for event in seen.events)
        label = self.label(scope)
        later = "later" if scope.reads is None else '(" WHERE " | " SELECT ") nothing'
        options = [f"then-{label}" if begun else later]
        if len(scope.sources) < MOST_SOURCES:
            placed = self._known(scope, seen, '{source} (" ON " on-{label}{using}) {joined}')
            beside = self._known(scope, seen, "{source} {joined}")
            kinds = "join-kind" if scope.reads is None else '(" JOIN " | " LEFT JOIN ")'
            options.append(f"{kinds} ({' | '.join([*placed, f'others-{label} placed'])})")
            options.append(f"cross-kind ({' | '.join([*beside, f'others-{label} beside'])})")
            if self.full and scope.reads is None and (full := self._full(scope, seen)):
                options.append(f"full-kind ({full})")
            if self.lateral and scope.reads is None:
                beside = self._known(scope, seen, "{source} {joined}", lateral=True)
                derived = self._derived(Scope(scope.named, scope), seen)
                options.append(f'" LATERAL JOIN (" ({" | ".join([*beside, f"{derived} beside"])})')
        return " | ".join(options)

    def _full(self, scope: Scope, seen: Seen[Event, Scope]) -> str:
        """The tables and named queries that FULL JOIN may add to ``scope``: servers have it for equalities alone."""
        options = []
        for text, source in self._candidates(scope, self.columns):
            wider = scope.joined(source)
            if equality := equal(scope, source):
                then = f'" ON " ({equality}) joined-{self.label(wider)}' if wider in seen.widened else "placed"
                options.append(f"{text} {then}")
        return " | ".join(options)

    def _known(self, scope: Scope, seen: Seen[Event, Scope], shape: str, *, lateral: bool = False) -> list[str]:
        """The sources that may be added to ``scope`` and have been; ``shape`` says how their rules go on."""
        texts = {} if lateral else {text: scope.joined(source) for text, source in self._candidates(scope, seen.tables)}
        texts = {text: wider for text, wider in texts.items() if wider in seen.widened}
        for event in seen.events:
            if event.kind == "derived" and event.before == scope and event.lateral == lateral:
                texts[("" if lateral else '"(" ') + verbatim(event.text)] = event.scope
        options = []
        for text, wider in texts.items():
            shared, label = using(scope, wider.sources[-1]), self.label(wider)
            options.append(shape.format(source=text, label=label, using=shared, joined=f"joined-{label}"))
        return options

    def _others(self, scope: Scope, seen: Seen[Event, Scope]) -> str:
        """The sources that may be added to ``scope`` and have not been yet."""
        texts = ["unread"] if len(seen.tables) < len(self.tables) else []
        for text, source in self._candidates(scope, seen.tables):
            if scope.joined(source) not in seen.widened:
                texts.append(text)
        return " | ".join([*texts, f'"(" {self._derived(Scope(scope.named), seen)}'])

    def _derived(self, inner: Scope, seen: Seen[Event, Scope]) -> str:
        """A derived table, its query written in ``inner``, after its parenthesis."""
        closed = sum(event.kind == "derived" for event in seen.events)
        alias = self.derived(closed + 1)
        return f'table-query-{self.label(inner)} ")" " AS " {literally(alias)}'

    def _candidates(self, scope: Scope, tables: Collection[str]) -> Iterable[tuple[str, Source]]:
        """Some ``tables``, and the named queries, as they may be written after the sources of ``scope``."""
        named = {source.name: source.columns for source in scope.named}
        visible = set(scope.names())
        for name, columns in ({name: self.columns[name] for name in self.columns if name in tables} | named).items():
            if name.lower() in visible:
                alias = self.alias(name, visible)
                yield f'{literally(name)} " AS " {literally(alias)}', Source(alias, columns, name)
            else:
                yield literally(name), Source(name, columns, name)

    def _grouped(self, scope: Scope, seen: Seen[Event, Scope]) -> str:
        """GROUP BY in ``scope``: as it was written, leading on, or still to be written."""
        known = [
            f"{verbatim(event.text)} then-{self.label(event.scope)}"
            for event in seen.events
            if event.kind == "grouped" and event.before == scope
        ]
        return " | ".join([*known, f'keys-{self.label(scope)} (" SELECT " | " HAVING ") nothing'])

    def _listed(self, scope: Scope, seen: Seen[Event, Scope]) -> str:
        """SELECT and the items of ``scope`` as they were written, with what goes by their number and kind."""
        options = []
        for event in seen.events:
            if event.kind != "listed" or event.before != scope:
                continue
            text, kinds = verbatim(event.text), event.scope.arms
            numbers = choice(str(number) for number, _ in enumerate(kinds, 1))
            keys = distinct_on(event.text)
            begin = ' ", " '.join(f"{verbatim(key)} direction" for key in keys) or f"({numbers}) direction"
            sort = f"sort-{self.label(scope)}" if keys else f"({numbers}) direction"
            options.append(f'{text} " ORDER BY " {begin} (", " {sort})* limit?')
            if all(map(comparable, kinds)):
                options.append(f"{text} set-operator from-arm-{self.label(event.scope)}")
        return " | ".join(options) or NEVER

    @staticmethod
    def _typed(scope: Scope, label: str) -> str:
        """The items of an arm of ``scope``; where it reads itself, of the very types of the first arm's."""
        if scope.reads is not None:
            return ' ", " '.join(f"({_again(scope, place)})" for place, _ in enumerate(scope.arms))
        rules = {kind: f"figure-{kind}-shown-{label}" for kind in COMPARED} | {TRUTH: f"condition-shown-{label}"}
        for kind in scope.arms:
            if kind.startswith(COMPUTED):
                plain = kind.removeprefix(COMPUTED)
                rules[kind] = f'({"condition" if plain == TRUTH else plain}-shown-{label} | "NULL")'
            elif kind.startswith(GIVEN):
                rules[kind] = rules[kind.removeprefix(GIVEN)]
            elif kind.startswith(MARK):
                rules[kind] = f"({choice([one.name for one in scope.visible() if one.kind == kind] + ['NULL'])})"
        return ' ", " '.join(rules.get(kind, "nothing") for kind in scope.arms) or NEVER


def _again(scope: Scope, place: int) -> str:
    """What the arm of a recursive query that reads itself may say in the place of one column."""
    assert scope.reads is not None
    name = f"{scope.reads.name}.{scope.reads.columns[place].name}"
    origin = scope.origins[place]
    if origin.isdigit():
        return f'{literally(name)} ((" + " | " - " | " * ") digit)?'
    table, _, column = origin.rpartition(".")
    same = [f"{source.name}.{column}" for source in scope.sources if table and source.table == table]
    return choice([name, *same])


def _outside(scope: Scope) -> Scope:
    """Where another arm of the query of ``scope`` chooses its sources."""
    return Scope(scope.named, scope.outer, arms=scope.arms, reads=scope.reads, origins=scope.origins)


def _inside(scope: Scope) -> Scope:
    """Where a query that is written in ``scope`` chooses its sources."""
    return Scope(scope.named, scope) if scope.sources else scope


def _hooks(kind: str) -> tuple[str, ...]:
    """The hooks that name columns of a kind."""
    if kind.startswith(MARK):
        return MARK.strip(), OTHER
    return (WHOLE, NUMBER) if kind == WHOLE else (kind,)
