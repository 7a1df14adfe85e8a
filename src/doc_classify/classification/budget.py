"""What a run may spend on an LLM: requests and money."""

from __future__ import annotations

import asyncio

from doc_classify.errors import BudgetReachedError
from doc_classify.records import Prices, Usage


class Budget:
    """Lets requests through as long as they fit; neither limit is ever passed.

    Each request holds what it may cost at most until its true cost is known. Belongs to one event
    loop.

    Args:
        prices: of tokens.
        max_calls: requests of this run, None for no limit.
        max_cost: money of this run, None for no limit.

    Attributes:
        spent: what all requests have used, by the server's counts.
    """

    def __init__(
        self,
        prices: Prices | None = None,
        *,
        max_calls: int | None = None,
        max_cost: float | None = None,
    ) -> None:
        self.prices = prices or Prices()
        self.spent = Usage()
        self._max_calls = max_calls
        self._max_cost = max_cost
        self._held_calls = 0
        self._held_cost = 0.0
        self._uncounted_cost = 0.0
        self._settled: asyncio.Event | None = None

    def lower(self, calls: int) -> None:
        """Take requests that were made elsewhere off the limit."""
        if self._max_calls is not None:
            self._max_calls = max(0, self._max_calls - calls)

    async def hold(self, most: Usage) -> float:
        """Set aside one request; returns what was set aside, to be given to :meth:`settle`.

        Waits while only requests in flight, which mostly cost less than they may, stand in its
        way.

        Args:
            most: what the request may use at most.

        Raises:
            BudgetReachedError: it does not fit any more.
        """
        cost = self.prices.cost(most)
        while reason := self._obstacle(cost):
            if not self._held_calls:
                raise BudgetReachedError(f"{reason}; what is classified is stored")
            if self._settled is None or self._settled.is_set():
                self._settled = asyncio.Event()
            await self._settled.wait()
        self._held_calls += 1
        self._held_cost += cost
        return cost

    def settle(self, held: float, used: Usage, *, known: bool = True) -> None:
        """Count what a request has used in the end.

        Args:
            held: what was set aside for it.
            used: what the server has counted.
            known: False where the server did not say: then it may have cost all that was held.
        """
        self._held_calls -= 1
        self._held_cost -= held
        self.spent += used
        if not known:
            self._uncounted_cost += held
        if self._settled:
            self._settled.set()

    def _obstacle(self, cost: float) -> str:
        """Why a request of that cost does not fit now; "" where it does."""
        calls = self.spent.calls + self._held_calls
        if self._max_calls is not None and calls >= self._max_calls:
            return f"stopped at the limit of {self._max_calls:,} LLM requests (max_llm_calls)"
        spent = self.prices.cost(self.spent) + self._uncounted_cost
        if self._max_cost is not None and spent + self._held_cost + cost > self._max_cost:
            limit = f"{self._max_cost:g} (max_cost; {spent:.4g} is spent)"
            return f"stopped before the cost passes {limit}"
        return ""
