"""A shop behind HTTP, written with FastAPI as anybody may have written it, on loopback while a test needs it.

It counts requests by verb and path, keeps its orders in this process, wants a token, and has paths that fail in every way.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import uvicorn
from fastapi import Body, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel, Field

from infra.bench import free_port

TOKEN = "s3cret-token"


class Line(BaseModel):
    """What is ordered."""

    item: str
    count: int = Field(1, ge=1, le=9)


class NewOrder(BaseModel):
    """An order to be placed."""

    user_id: str
    lines: list[Line] = Field(min_length=1)
    note: str | None = None


class Card(BaseModel):
    """By card."""

    kind: Literal["card"]
    number: str


class Cash(BaseModel):
    """In cash."""

    kind: Literal["cash"]


class Payment(BaseModel):
    """How it is paid."""

    how: Card | Cash = Field(discriminator="kind")


class Part(BaseModel):
    """A part, of parts."""

    name: str
    parts: list[Part] = []


def start() -> dict[str, Any]:
    """What the shop holds at first."""
    orders = {
        f"W{number}": {"id": f"W{number}", "user_id": f"u{number % 3}", "status": "pending", "total": 10 + number}
        for number in range(5)
    }
    return {"users": {f"u{number}": {"name": f"N{number}"} for number in range(3)}, "orders": orders, "payments": {}, "changed": 0}


class Shop:
    """state: what it holds. seen: (verb, path) -> requests."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = start()
        self.seen: Counter[tuple[str, str]] = Counter()
        self.headers: list[dict[str, str]] = []
        self.busy = 0
        self.url = ""
        self.app = self._made()

    @property
    def writes(self) -> int:
        """Requests that could change something."""
        return sum(count for (verb, _), count in self.seen.items() if verb not in ("GET", "HEAD"))

    def _made(self) -> FastAPI:
        app = FastAPI(title="Shop", version="1")

        @app.middleware("http")
        async def count(request: Request, following: Any) -> Response:
            self.seen[request.method, request.url.path] += 1
            self.headers.append({**request.headers, "query": request.url.query})
            answer: Response = await following(request)
            return answer

        def known(authorization: str = Header("", include_in_schema=False)) -> None:
            if authorization != f"Bearer {TOKEN}":
                raise HTTPException(401, f"bad token {authorization}")

        def order_of(order_id: str) -> dict[str, Any]:
            if order_id not in self.state["orders"]:
                raise HTTPException(404, f"no order {order_id}")
            found: dict[str, Any] = self.state["orders"][order_id]
            return found

        signed = [Depends(known)]

        @app.get("/orders/{order_id}", tags=["orders"], operation_id="get_order", dependencies=signed)
        def get_order(order_id: str) -> dict[str, Any]:
            """Look an order up."""
            return order_of(order_id)

        @app.get("/orders", tags=["orders"], operation_id="list_orders", dependencies=signed)
        def list_orders(
            status: list[str] = Query([], description="wanted statuses"), page: int = 1, x_lang: str = Header("en")
        ) -> list[dict[str, Any]]:
            return [order for order in self.state["orders"].values() if not status or order["status"] in status]

        @app.post("/orders", tags=["orders"], operation_id="place_order", status_code=201, dependencies=signed)
        def place_order(order: NewOrder) -> dict[str, Any]:
            """Place an order."""
            number = f"W{len(self.state['orders'])}"
            self.state["orders"][number] = {"id": number, "status": "pending", **order.model_dump()}
            self.state["changed"] += time.time()
            return self.state["orders"][number]  # type: ignore[no-any-return]

        @app.post("/orders/{order_id}/cancel", tags=["orders"], operation_id="cancel_order", dependencies=signed)
        def cancel_order(order_id: str, reason: str = Body(embed=True)) -> dict[str, Any]:
            """Cancel an order that is pending."""
            order = order_of(order_id)
            if order["status"] != "pending":
                raise HTTPException(409, detail={"message": f"{order_id} is {order['status']}"})
            order |= {"status": "cancelled", "reason": reason}
            return order

        @app.post("/orders/{order_id}/pay", tags=["orders"], operation_id="pay_order", dependencies=signed)
        def pay_order(order_id: str, payment: Payment) -> Response:
            """Pay an order."""
            self.state["payments"][order_id] = payment.how.model_dump()
            return Response(status_code=204)

        @app.delete("/orders/{order_id}", tags=["orders"], operation_id="delete_order", dependencies=signed)
        def delete_order(order_id: str) -> str:
            """Forget an order."""
            return str(self.state["orders"].pop(order_id)["id"])

        @app.post("/search", operation_id="search_orders", dependencies=signed)
        def search(user_id: str = Body(embed=True)) -> list[str]:
            """Orders of a user."""
            return [order["id"] for order in self.state["orders"].values() if order["user_id"] == user_id]

        @app.post("/parts", operation_id="build_part")
        def build(part: Part) -> str:
            """Build a part of parts."""
            return part.name

        @app.get("/admin/state")
        def state() -> dict[str, Any]:
            return self.state

        @app.put("/admin/state")
        def put_state(state: dict[str, Any]) -> None:
            self.state = state

        @app.post("/admin/reset", status_code=204)
        def reset() -> None:
            self.state = start()

        @app.get("/odd/picture")
        def picture() -> Response:
            return Response(b"\x89PNG\x00\x01", media_type="image/png")

        @app.get("/odd/long")
        def long() -> Response:
            return Response("x" * (9 * 2**20), media_type="text/plain")

        @app.get("/odd/elsewhere")
        def elsewhere() -> RedirectResponse:
            return RedirectResponse("http://localhost:9/orders/W1")

        @app.get("/odd/moved")
        def moved() -> RedirectResponse:
            return RedirectResponse("/orders/W1")

        @app.get("/odd/slow")
        def slow() -> str:
            time.sleep(2)
            return "at last"

        @app.get("/odd/fails")
        def fails() -> Response:
            return JSONResponse(
                {"title": "Out of order", "detail": f"token {TOKEN} broke it"}, 500, media_type="application/problem+json"
            )

        @app.post("/odd/busy")
        def busy() -> Response:
            self.busy += 1
            return JSONResponse("here") if self.busy > 1 else JSONResponse({"detail": "later"}, 503, {"retry-after": "0"})

        @app.get("/odd/flaky")
        def flaky() -> Response:
            self.busy += 1
            return JSONResponse("there") if self.busy > 2 else Response("down", 502)

        @app.post("/odd/broken")
        def broken() -> Response:
            self.busy += 1
            return Response("down", 503)

        return app


@contextmanager
def running(shop: Shop) -> Iterator[Shop]:
    """The shop on loopback while the block runs; `url` says where."""
    with serving(shop.app) as shop.url:
        yield shop


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """A service on loopback while the block runs; its url."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
