"""The hooks of the grammars that write names out, ``sql-<dialect>.gbnf``, scope by scope.

What a query can name is known only as it is written: named queries, derived tables, aliases, the scopes around a
subquery. :mod:`experts.sql.scopes` reads that from the text; here it becomes hook bodies. Names that a query invents
are drawn from short menus (``cte1``, ``d1``, ``x1``, ``orders_2``), so that nothing can be named that does not exist.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import count, islice
from typing import Generic, TypeVar

from expert_cli.errors import ContextError
from expert_cli.grammar.bind import NEVER
from experts.sql.pieces import choice, literally
from experts.sql.scopes import Event, Reader, Scope, Source

MOST_SOURCES = 10  # in one FROM
WIDEST = 6  # columns of a set operation
MOST_NAMED = 9  # common table expressions
OUTPUTS = tuple(f"x{number}" for number in range(1, 13))

# What cannot be written: it follows the text after which the next state is asked for.
NOTHING = "[\\x01-\\x08]"

State = tuple[Event, ...]


E = TypeVar("E")
S = TypeVar("S")


@dataclass(frozen=True)
class Seen(Generic[E, S]):
    """What a state tells all its scopes: the events, the scopes that have their sources, and the tables that are read.

    Tables that are not read can be named everywhere, and alike: one rule, ``unread``, does for all scopes.
    """

    events: tuple[E, ...]
    widened: frozenset[S]
    tables: frozenset[str]


class Names:
    """The tables of a database by the names that they are written with, and names for what a query invents.

    Raises:
        ContextError: there is no table.
    """

    def __init__(self, tables: Mapping[str, Sequence[str]], quoted: Callable[[str], str]) -> None:
        if not tables:
            raise ContextError("no table can be named; open a database that has tables")
        self.quoted = quoted
        self.tables = {quoted(name): tuple(map(quoted, columns)) for name, columns in tables.items()}
        self.taken = {name.lower() for name in tables}
        self.labels: dict[Hashable, int] = {}

    def label(self, scope: Hashable) -> str:
        """What the rules of a scope end in."""
        return f"s{self.labels.setdefault(scope, len(self.labels))}"

    def alias(self, name: str, visible: set[str]) -> str:
        """The name of another reading of ``name`` where it is visible already."""
        bare = name[1:-1] if name[:1] in '"`' else name
        return self.free_name(bare + "_{}", 2, visible)

    def free_name(self, pattern: str, number: int, used: Iterable[str]) -> str:
        """The first name of ``pattern``, numbered from ``number`` on, that no table and nothing in ``used`` has."""
        taken = self.taken | {name.strip('"`').lower() for name in used}
        while pattern.format(number).lower() in taken:
            number += 1
        return self.quoted(pattern.format(number))

    def read(self, names: Iterable[str]) -> frozenset[str]:
        """The tables that one of ``names`` is the name of."""
        lower = {name.lower() for name in names}
        return frozenset(name for name in self.tables if name.lower() in lower)

    def unread(self, read: frozenset[str]) -> str:
        """One of the tables that are not among ``read``."""
        return choice(name for name in self.tables if name not in read)

    def derived(self, number: int) -> str:
        """The name of the derived table that is closed as the ``number``-th one."""
        free = (one for one in count(1) if f"d{one}" not in self.taken)
        return f"d{next(islice(free, number - 1, None))}"


@cache
def mathematical() -> bool:
    """Whether Python's SQLite computes square roots, powers and logarithms: it may have been built without them."""
    with closing(sqlite3.connect(":memory:")) as connection, suppress(sqlite3.OperationalError):
        return connection.execute("SELECT SQRT(4) + LOG10(1) + CEIL(0.5)").fetchone() is not None
    return False


class NamesBinding(Names):
    """The hooks for one database, or the part of it that a question is linked to.

    Args:
        tables: column names by table name.
        values: literals that the question offers.
        quoted: writes a name as an identifier of the dialect.
        literal: writes a value as a literal of the dialect.
        free: whether literals may also be made up.

    Raises:
        ContextError: there is no table.
    """

    def __init__(
        self,
        tables: Mapping[str, Sequence[str]],
        values: Iterable[str | int | float],
        *,
        quoted: Callable[[str], str],
        literal: Callable[[str | int | float], str],
        free: bool,
    ) -> None:
        super().__init__(tables, quoted)
        self.reader = Reader(self.tables)
        self.root = Scope()
        values = list(values)
        named = {column.lower().strip('"') for columns in self.tables.values() for column in columns}
        counts = [value for value in values if isinstance(value, int) and value > 0]
        self.fixed = {
            "offered": choice(map(literal, values)),
            "offered-count": choice(map(str, counts)),
            "free": '""' if free else NEVER,
            "alone": '""',
            "told": '""',
            "untold": NEVER,
            "math": '""' if mathematical() else NEVER,
            "truth": NEVER if named & {"true", "false"} else choice(("TRUE", "FALSE")),
            "name": choice(OUTPUTS),
            "nothing": NOTHING,
            "later": '" SELECT " nothing',
            "placed": '(" ON " | " USING (") nothing',
            "beside": '(" SELECT " | " JOIN " | " LEFT JOIN ") nothing',
        }

    @lru_cache(maxsize=1024)  # noqa: B019 - a binding lives as long as its question
    def state(self, written: str) -> State:
        """What has come into view so far."""
        return self.reader.read(written)

    def rules(self, state: State) -> Mapping[str, str]:
        """The hook bodies of ``state``."""
        rules = dict(self.fixed)
        told = any(event.kind == "constant" for event in state)
        rules["begin"] = self._begin(state, told=told)
        if not told:
            rules |= {"told": NEVER, "untold": '""'}
        known = {self.root: None} | {event.scope: None for event in state}
        contexts = dict.fromkeys(Scope(scope.named) for scope in known)
        tables = self.read(source.name for scope in known for source in scope.visible())
        rules["unread"] = self.unread(tables)
        seen = Seen(state, frozenset(event.scope for event in state if event.kind == "joined"), tables)
        for scope in known | contexts:
            rules |= self._scope(scope, seen)
        return rules

    def _scope(self, scope: Scope, seen: Seen[Event, Scope]) -> dict[str, str]:
        label = self.label(scope)
        columns = [f"{source.name}.{column}" for source in scope.visible() for column in source.columns]
        own = [f"{source.name}.{column}" for source in scope.sources for column in source.columns]
        stars = self._stars(scope)
        rules = {
            f"column-{label}": choice(columns),
            f"own-column-{label}": choice(own),
            f"everything-{label}": choice(stars),
            f"all-{label}": choice(star for star in stars if star == "*"),
            f"twin-{label}": self._twin(scope, seen),
            f"inward-{label}": NEVER if scope.outer else '""',
            f"loose-{label}": NEVER
            if any(one.kind == "windowed" and one.scope == scope for one in seen.events)
            else '""',
            f"from-{label}": self._from(scope, seen),
            f"others-{label}": self._others(scope, seen),
            f"others-{self.label(self._context(scope))}": self._others(self._context(scope), seen),
            f"again-{label}": f"from-{self.label(scope.outer or Scope(scope.named))}",
        }
        if scope in seen.widened:
            rules[f"joined-{label}"] = self._joined(scope, seen)
        return rules

    @staticmethod
    def _stars(scope: Scope) -> list[str]:
        """The stars of a scope, but none over a name that three sources have.

        Where USING merged two of them and a FULL JOIN follows, SQLite takes such a star's column for ambiguous.
        """
        often = Counter(column.lower() for source in scope.sources for column in source.columns)
        plain = [source for source in scope.sources if all(often[column.lower()] < 3 for column in source.columns)]
        whole = ["*"] if plain and len(plain) == len(scope.sources) else []
        return whole + [f"{source.name}.*" for source in plain]

    def _begin(self, state: State, *, told: bool) -> str:
        """A WITH clause as far as it is written, word for word, and how it goes on; ``told`` as the hook is."""
        opened = [event for event in state if event.kind in ("named", "arm")]
        if not opened:
            root = self.label(self.root)
            name = literally(self._cte(self.root) + " AS (")
            row = f' | constant-row-{root} " UNION"' if told else ""
            recursive = f'"RECURSIVE " {name} (query-{root} ")"{row}) nothing'
            return f'query-{root} | "WITH " ({name} query-{root} ")" nothing | {recursive})'
        last = opened[-1]
        label = self.label(Scope(last.scope.named))
        if last.kind == "arm":
            width = last.scope.arms
            arms = f"again-arm-{width}-{label} | from-recursive-{width}-{self.label(last.scope)}"
            arms = arms if 0 < width <= WIDEST else "nothing"
            return f'{literally(last.text)} (" ALL " | " ") ({arms if 0 < width <= 6 else "nothing"}) ")" nothing'
        more = ""
        if len(last.scope.named) < MOST_NAMED:
            again = f' | constant-row-{label} " UNION"' if told and "RECURSIVE " in last.text[:15] else ""
            body = f'query-{label} ")"{again}'
            more = f" | {literally(', ' + self._cte(last.scope) + ' AS (')} ({body}) nothing"
        return f'{literally(last.text)} (" " query-{label}{more})'

    def _cte(self, scope: Scope) -> str:
        return self.free_name("cte{}", len(scope.named) + 1, {source.name for source in scope.named})

    def _from(self, scope: Scope, seen: Seen[Event, Scope]) -> str:
        """FROM in a subquery of ``scope``, or in a query that nothing is around."""
        context = self._context(scope)
        if context.arms:
            return self._recursive(context, seen)
        known = self._known(context, seen, "{source} {joined}")
        return f'"FROM " ({" | ".join([*known, f"others-{self.label(context)} beside"])})'

    def _twin(self, scope: Scope, seen: Seen[Event, Scope]) -> str:
        """FROM with the sources of ``scope`` once more, where all of them are tables or named queries.

        There is none where two of them share a column: USING may have made one of two, and the star has fewer then.
        """
        every = [column.lower() for source in scope.sources for column in source.columns]
        if len(scope.sources) > 1 and len(set(every)) < len(every):
            return NEVER
        before = Scope(scope.named, scope.outer)
        text = ""
        for source in scope.sources:
            written = next((text for text, one in self._candidates(before, seen) if one == source), None)
            if written is None:
                return NEVER
            after = before.joined(source)
            placed = f'join-kind {written} " ON " on-{self.label(after)}'
            text += f" ({placed} | cross-kind {written})" if text else f'"FROM " {written}'
            before = after
        return text or NEVER

    @staticmethod
    def _context(scope: Scope) -> Scope:
        """Where the sources of a query in ``scope`` are chosen."""
        return Scope(scope.named, scope) if scope.sources else scope

    def _recursive(self, context: Scope, seen: Seen[Event, Scope]) -> str:
        """FROM in the arm of a recursive query that reads itself."""
        name = self._cte(context)
        for event in seen.events:
            if event.kind == "joined" and [source.name for source in event.scope.sources] == [name]:
                return f"{literally('FROM ' + name)} joined-{self.label(event.scope)}"
        return f"{literally('FROM ' + name)} beside"

    def _joined(self, scope: Scope, seen: Seen[Event, Scope]) -> str:
        """What may follow the sources of ``scope``: another source, or SELECT once it is written."""
        selected = any(event.kind == "selected" and event.scope == scope for event in seen.events)
        label = self.label(scope)
        options = [f"then-{label}" if selected else "later"]
        if len(scope.sources) < MOST_SOURCES:
            placed = self._known(scope, seen, '{source} (" ON " on-{label}{using}) {joined}')
            beside = self._known(scope, seen, "{source} {joined}")
            options.append(f"join-kind ({' | '.join([*placed, f'others-{label} placed'])})")
            options.append(f"cross-kind ({' | '.join([*beside, f'others-{label} beside'])})")
        return " | ".join(options)

    def _known(self, scope: Scope, seen: Seen[Event, Scope], shape: str) -> list[str]:
        """The sources that may be added to ``scope`` and have been; ``shape`` says how their rules go on."""
        texts = {text: scope.joined(source) for text, source in self._candidates(scope, seen)}
        texts = {text: wider for text, wider in texts.items() if wider in seen.widened}
        for event in seen.events:
            if event.kind == "derived" and event.before == scope:
                texts[_verbatim(event.text)] = event.scope
        options = []
        for text, wider in texts.items():
            using = self._using(scope, wider.sources[-1])
            label = self.label(wider)
            options.append(shape.format(source=text, label=label, using=using, joined=f"joined-{label}"))
        return options

    def _others(self, scope: Scope, seen: Seen[Event, Scope]) -> str:
        """The sources that may be added to ``scope`` and have not been yet."""
        texts = ["unread"] if len(seen.tables) < len(self.tables) else []
        texts += [text for text, source in self._candidates(scope, seen) if scope.joined(source) not in seen.widened]
        closed = sum(event.kind == "derived" for event in seen.events)
        alias = self.derived(closed + 1)
        texts.append(f'"(" query-{self.label(Scope(scope.named))} ")" " AS " {literally(alias)}')
        return " | ".join(texts)

    def _candidates(self, scope: Scope, seen: Seen[Event, Scope]) -> Iterable[tuple[str, Source]]:
        """Tables that are read, and named queries, as they may follow the sources of ``scope``, alias or not."""
        named = {source.name: source.columns for source in scope.named}
        own = {source.name.lower() for source in scope.sources}
        visible = {source.name.lower() for source in scope.visible()}
        for name, columns in ({name: self.tables[name] for name in self.tables if name in seen.tables} | named).items():
            if name.lower() not in own:
                yield literally(name), Source(name, columns)
            if name.lower() in visible:
                alias = self.alias(name, visible)
                yield f'{literally(name)} " AS " {literally(alias)}', Source(alias, columns)

    @staticmethod
    def _using(scope: Scope, source: Source) -> str:
        """USING as another way than ON: with columns of ``source`` that exactly one source before it has."""
        before = [column.lower() for one in scope.sources for column in one.columns]
        shared = [column for column in source.columns if before.count(column.lower()) == 1]
        return f' | " USING (" ({choice(shared)}) ")"' if shared else ""


# How the grammars cut text: a derived table that is written is repeated word for word, in the same pieces.
_PIECE = re.compile(
    r"'(?:[^']|'')*'|\d[\d.]*(?:E[-+]?\d+)?|[\d.]+"
    r"| (?:GROUP BY|ORDER BY|UNION ALL|(?:NATURAL )?(?:LEFT |RIGHT |FULL |CROSS )?JOIN|(?:ROWS|GROUPS|RANGE) BETWEEN) "
    r"| NOT(?= (?:IN|LIKE|GLOB|BETWEEN) )| (?:DESC|ASC|END|COLLATE (?:NOCASE|BINARY|RTRIM))\b"
    r"|(?:ROWS|RANGE) BETWEEN | (?:IN|OVER|USING) \(| (?:[A-Z]+|[^\w\s'\"`(),]+) "
    r"|(?:DISTINCT FROM|DISTINCT|NOT|RECURSIVE|FROM|SELECT) |EXISTS \(|[A-Z_]+\(\)|[A-Z_]+\(|, "
    r"|(?:\w+|\"(?:[^\"]|\"\")*\"|`[^`]*`)(?:\.(?:\w+|\*|\"(?:[^\"]|\"\")*\"|`[^`]*`))?|."
)


def _verbatim(text: str) -> str:
    return " ".join(literally(piece) for piece in _PIECE.findall(text))
