"""Floor 5: the conformance kit: golden vectors of the real engine, run against this implementation.

``realmframe conformance DIR`` runs every vector file in a folder, and in the folders in it. Formats, told from a file's
first vector:

=============== ======================================================================================================
codec, schema   changeset bytes with what they decode and encode to, or bytes to be refused
transform       two concurrent sides and both after transformation, or a merge that fails
merge_state     the same with base changesets and the state that both ways lead to
apply           changesets on an empty database and the state after them, or an error
rql             queries with the keys they give on the objects of ``rql_fixture.json``, or an error
=============== ======================================================================================================
"""

from realmframe.conformance.run import FileReport, Report, main, run

__all__ = ["FileReport", "Report", "main", "run"]
