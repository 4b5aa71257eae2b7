"""A bank behind HTTP that keeps its accounts in a database, SQLite or Postgres, and holds a connection to it all the time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from fastapi import Body, FastAPI, HTTPException

Execute = Callable[[str, tuple[Any, ...]], list[tuple[Any, ...]]]
"""Runs a statement with `?` for its values, in a transaction of its own, and gives the rows."""
TABLES = (
    "create table accounts (id varchar(9) primary key, owner varchar(9), balance integer)",
    "create table transfers (id integer primary key, source varchar(9) references accounts, target varchar(9), amount integer)",
    "create table notes (words varchar(99))",
    *(f"insert into accounts values ('a{number}', 'u{number}', 100)" for number in range(3)),
)


def app(execute: Execute) -> FastAPI:
    """The bank over a database in which TABLES were made."""
    bank, lock = FastAPI(), threading.Lock()

    def run(statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with lock:
            return execute(statement, values)

    @bank.get("/accounts/{account_id}", operation_id="get_account")
    def get_account(account_id: str) -> dict[str, Any]:
        found = run("select id, owner, balance from accounts where id = ?", account_id)
        if not found:
            raise HTTPException(404, f"no account {account_id}")
        return dict(zip(("id", "owner", "balance"), found[0], strict=True))

    @bank.post("/transfers", operation_id="transfer")
    def transfer(source: str = Body(), target: str = Body(), amount: int = Body(gt=0)) -> int:
        if get_account(source)["balance"] < amount:
            raise HTTPException(409, f"{source} holds less")
        run("update accounts set balance = balance - ? where id = ?", amount, source)
        run("update accounts set balance = balance + ? where id = ?", amount, target)
        number = int(run("select count(*) from transfers")[0][0]) + 1
        run("insert into transfers values (?, ?, ?, ?)", number, source, target, amount)
        return number

    @bank.post("/notes", operation_id="note")
    def note(words: str = Body(embed=True)) -> None:
        run("insert into notes values (?)", words)

    return bank
