"""What a run may spend on an LLM: requests and money."""

from __future__ import annotations

from doc_classify.errors import BudgetReachedError
from doc_classify.records import Prices, Usage


class Budget:
    """Lets requests through as long as they fit; the money limit is never passed.

    Each request holds what it may cost at most until its true cost is known.

    Args:
        prices: of tokens.
        max_calls: requests of this run, None for no limit.
        max_cost: money of this run, None for no limit.
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

    def hold(self, most: Usage) -> float:
        """Set aside one request; returns what was set aside, to be given to :meth:`settle`.

        Args:
            most: what the request may use at most.

        Raises:
            BudgetReachedError: it does not fit any more.
        """
        calls = self.spent.calls + self._held_calls
        if self._max_calls is not None and calls >= self._max_calls:
            raise BudgetReachedError(
                f"stopped at the limit of {self._max_calls:,} LLM requests (max_llm_calls); what "
                "is classified is stored"
            )
        cost = self.prices.cost(most)
        so_far = self.prices.cost(self.spent)
        if self._max_cost is not None and so_far + self._held_cost + cost > self._max_cost:
            raise BudgetReachedError(
                f"stopped before the cost passes {self._max_cost:g} (max_cost; {so_far:.4g} is "
                "spent); what is classified is stored"
            )
        self._held_calls += 1
        self._held_cost += cost
        return cost

    def settle(self, held: float, used: Usage) -> None:
        """Count what a request has used in the end."""
        self._held_calls -= 1
        self._held_cost -= held
        self.spent += used
