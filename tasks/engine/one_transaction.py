"""Many writes of an MLflow store as one transaction of its database: each of its own waits for the disk, which on a busy machine
is most of the time that they take. Not MLflow's public interface: `tests/engine/test_traces.py`."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def one_transaction(store: Any) -> Iterator[Any]:
    """A store whose writes are committed together at the end, or none of them; it is for the caller's thread alone. A store that has no
    database, one behind a tracking server, is given back as it is."""
    from mlflow.store.db.utils import _get_managed_session_maker
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy.orm import sessionmaker

    if not isinstance(store, SqlAlchemyStore):
        yield store
        return
    with store.ManagedSessionMaker(read_only=False) as session:
        connection = session.connection()
        if store.db_type == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # Python's driver would let the first savepoint begin and end a transaction
        within = copy.copy(store)
        sessions = sessionmaker(connection, join_transaction_mode="create_savepoint")
        within.ManagedSessionMaker = _get_managed_session_maker(sessions, store.db_type)
        within.get_experiment = functools.cache(within.get_experiment)  # asked for each trace
        yield within
