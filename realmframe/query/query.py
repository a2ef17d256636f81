"""Queries: parsed, bound to a class, evaluated on a source."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from realmframe.errors import QueryError
from realmframe.model import Schema
from realmframe.query import tree as t
from realmframe.query.absent import absent_objects, can_be_absent, named_objects, without
from realmframe.query.bind import bind_predicate
from realmframe.query.flexible import check_flexible, client_text, join_texts
from realmframe.query.order import bind_orderings
from realmframe.query.parsing import parse_tree
from realmframe.query.paths import Scope
from realmframe.query.printing import print_tree
from realmframe.query.source import Context, Rows, Source


class Query:
    """A query in the Realm Query Language.

    Attributes
    ----------
    tree : Tree
        What the text says.
    """

    __slots__ = ("_source_text", "tree")

    def __init__(self, tree: t.Tree, source_text: str = "") -> None:
        self.tree = tree
        self._source_text = source_text

    @property
    def text(self) -> str:
        """The query as text again, in the client's style, arguments put in."""
        return print_tree(self.tree)

    def __repr__(self) -> str:
        return f"Query({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Query) and self.tree == other.tree

    def __hash__(self) -> int:
        return hash(self.text)

    def bind(self, schema: Schema, class_name: str) -> Bound:
        """Check names and types against a class.

        Parameters
        ----------
        schema : Schema
        class_name : str

        Raises
        ------
        QueryError
            If the class has no such property, or types cannot be compared.
        """
        if class_name not in schema:
            raise QueryError(f"There is no class {class_name!r} to query.")
        try:
            return Bound(self, schema, class_name)
        except QueryError as error:
            raise self.marked(error) from None

    def marked(self, error: QueryError) -> QueryError:
        """Give an error with the text of the query, so that its message marks the place."""
        if error.text is not None or not self._source_text:
            return error
        position = error.position if error.position is not None else 0
        return QueryError(error.message, position=position, text=self._source_text, kind=error.kind, hint=error.hint)


class Bound:
    """A query bound to a class; it can be evaluated any number of times, from several threads.

    Attributes
    ----------
    query : Query
    schema : Schema
    class_name : str
    """

    def __init__(self, query: Query, schema: Schema, class_name: str) -> None:
        self.query, self.schema, self.class_name = query, schema, class_name
        self._named = list(named_objects(query.tree))
        self._refused: QueryError | None = None
        try:
            self._plan = _Plan(schema, class_name, query.tree)
        except QueryError as error:
            if not self._named or not all(can_be_absent(schema, one) for one in self._named):
                raise
            # What cannot be compared with an object of some class can be with null: it depends on the objects.
            self._refused = error
            try:
                self._plan = _Plan(schema, class_name, without(query.tree, set(self._named)))
            except QueryError:
                raise error from None

    def rows(self, source: Source, rows: npt.ArrayLike | None = None) -> Rows:
        """Evaluate.

        Parameters
        ----------
        source : Source
        rows : array of int, optional
            The only rows to look at; the cost is in proportion to them.

        Returns
        -------
        array of int64
            Row positions in the order of the result (of the table, without SORT).

        Raises
        ------
        QueryError
            For what only the objects show: an object of the wrong class, something to order by a collection.
        """
        if rows is None:
            candidates = _all_rows(source.num_rows(self.class_name))
        else:
            candidates = np.asarray(rows, dtype=np.int64)
            if candidates.size > 1 and not (candidates[1:] > candidates[:-1]).all():
                candidates = np.unique(candidates)
        context = Context(source)
        try:
            plan = self._plan_for(source)
            mask = plan.predicate.mask(context, candidates)
            found: Rows = np.flatnonzero(mask) if rows is None else candidates[mask]
            return plan.ordered(context, found)
        except QueryError as error:
            raise self.query.marked(error) from None

    def _plan_for(self, source: Source) -> _Plan:
        """Take objects that the source does not have for null."""
        absent = absent_objects(self.schema, source, self._named) if self._named else set()
        if absent:
            return _Plan(self.schema, self.class_name, without(self.query.tree, absent))
        if self._refused is not None:
            raise self._refused
        return self._plan

    def check_flexible(self) -> None:
        """Check that a Flexible Sync subscription can use the query.

        Raises
        ------
        QueryError
            Naming the operator that a server does not take.
        """
        check_flexible(self.schema, self.class_name, self.query.tree)


class _Plan:
    """A tree bound to a class."""

    def __init__(self, schema: Schema, class_name: str, tree: t.Tree) -> None:
        scope = Scope(schema, class_name)
        self.predicate = bind_predicate(scope, tree.predicate)
        self.orderings = bind_orderings(scope, tree.orderings)

    def ordered(self, context: Context, rows: Rows) -> Rows:
        """Apply the clauses, if there is anything to order; a leading LIMIT may leave nothing."""
        if self.orderings and self.orderings[0].kind == "limit":
            rows = rows[: self.orderings[0].count]
        if len(rows):
            for clause in self.orderings:
                rows = clause.apply(context, rows)
        return rows


@lru_cache(maxsize=4)
def _all_rows(count: int) -> Rows:
    rows = np.arange(count, dtype=np.int64)
    rows.flags.writeable = False
    return rows


def parse(text: str, *args: Any) -> Query:
    """Parse a query.

    Parameters
    ----------
    text : str
    *args : object
        Values of ``$0``, ``$1``...: model values, or lists of them.

    Raises
    ------
    QueryError
        With the position at which the text makes no sense.
    """
    return Query(parse_tree(text, args), text)


def subscription_text(queries: Iterable[Query | str]) -> str:
    """Write the queries of one class as a client sends them: ``(age > 35 ) OR (name == "Ann" )``.

    Parameters
    ----------
    queries : iterable of Query or str
        Text is parsed first.

    Returns
    -------
    str
        Each query once, in parentheses, sorted, joined by ``OR``; empty for no query.
    """
    trees = [(parse(q) if isinstance(q, str) else q).tree for q in queries]
    return join_texts(client_text(tree) for tree in trees)


def normal_form(text: str) -> str:
    """Write one query as a client sends it in a subscription: ``(age > 35 )``."""
    return subscription_text([text])
