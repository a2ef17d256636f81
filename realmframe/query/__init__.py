"""Floor 1: the Realm Query Language — parse, bind to a schema, evaluate on Arrow columns."""

from realmframe.query.flexible import MAX_TEXT
from realmframe.query.query import Bound, Query, normal_form, parse, subscription_text
from realmframe.query.source import Source

__all__ = ["MAX_TEXT", "Bound", "Query", "Source", "normal_form", "parse", "subscription_text"]
