"""The search for the number of requests that an LLM server should have at a time.

What is looked for is the smallest limit that gets nearly all of the server's throughput. Latency
does not tell: a GPU that batches gets slower for each request and faster for all of them, up to a
point, while a server that does one after the other lets the rest queue. So limits are compared by
the throughput that was measured under them.

**Measuring.** Throughput is taken from Little's law (J. D. C. Little, "A Proof for the Queuing
Formula L = λW", 1961): requests in flight, averaged over time, divided by their average time of
stay; in work per second, it is ``in_flight * sum(work) / sum(time)``. A count of completions per
second would depend on where in a burst the counting begins and ends, and on how long the documents
are that happen to be in flight then; here each piece of work stands beside the time that it took.
The measurement of one limit
is an *epoch*: completions are ignored until hardly any request is left that began under the limit
before (at least ``limit`` of them), then twice as many (at least four) are measured; on slow
servers once as many. Epochs in which places stayed free say nothing about the limit and are
ignored.

**Deciding.** From 1, the limit doubles while throughput rises; then it settles a little above the
last one that was useful. From then on lower and higher limits are tried in turn, at growing
intervals, each against the present one, epoch about epoch, until the difference stands out from
the scatter of the epochs. A lower limit stays when it loses next to nothing, a higher one when it
gains something that is worth the longer queue. A sudden change of throughput, because the server
or its other clients changed, lets the search begin anew from where it is.

**Refusals** (429, 503) cut the limit, once for all requests that were sent before the cut, and
are remembered as a ceiling for a while.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

_SLOW = 20.0
"""Seconds after which an epoch makes do with ``limit`` completions."""
_FULL = 0.8
"""Share of the places that have to be taken, on average, for an epoch to count."""
_WORTH = 0.06
"""Elasticity that makes a higher limit worth it: relative gain of throughput over relative growth
of the limit, in logarithms; 0.06 is 2.5 % for half as many again, 4 % for twice as many."""
_LOSS = 0.037
"""The same for the way down: 1.5 % of loss for a third less."""
_SURE = 1.5
"""Standard errors that a difference has to stand out by."""
_LEAST_SCATTER = 0.005
"""Relative standard deviation of an epoch's throughput that is always allowed for."""
_MAX_PAIRS = 5
"""Epochs under a limit on trial after which the better guess has to do."""
_LONGEST_HOLD = 12
"""Epochs between two trials when one after the other found nothing."""


@dataclass(eq=False, slots=True)
class Place:
    """The right to have one request in flight; from :meth:`.pacing.Pace.acquire`.

    Attributes:
        began: when it was given, by the pace's clock.
        version: number of the limit it was given under.
        held: it was not given back yet.
    """

    began: float
    version: int
    held: bool = True


@dataclass(slots=True)
class _Epoch:
    """Sums over the completions of one measurement."""

    began: float
    area: float
    skip: int = 0
    extra: int = 0
    count: int = 0
    work: float = 0.0
    seconds: float = 0.0

    def add(self, work: float, seconds: float) -> None:
        self.count += 1
        self.work += work
        self.seconds += seconds

    def rate(self, now: float, area: float, limit: int) -> float | None:
        """Logarithm of work per second; None when the limit was not what held it up."""
        if now <= self.began or self.seconds <= 0 or self.work <= 0:
            return None
        in_flight = (area - self.area) / (now - self.began)
        if in_flight < _FULL * limit:
            return None
        return math.log(in_flight * self.work / self.seconds)


@dataclass(slots=True)
class _Trial:
    """A comparison of another limit with the present one."""

    limit: int
    factor: float
    rates: list[float] = field(default_factory=list)

    @property
    def fast(self) -> bool:
        """Part of a series of doublings or halvings, which takes less evidence."""
        return self.factor >= 2 or self.factor <= 0.5


def _completions(limit: int) -> int:
    """Completions that an epoch measures."""
    return max(2 * limit, 4)


class Search:
    """The decisions about the limit, without any waiting. Used by :class:`.pacing.Pace`.

    Attributes:
        limit: requests that may be in flight now.
        version: grows with every change of the limit.
    """

    def __init__(self, maximum: int, now: float) -> None:
        self._maximum = maximum
        self.version = 0
        self._cut_version = 0
        self._scatter = 0.3**2  # variance for each completion of an epoch
        self._compared = 0
        self.begin(now, 0.0, 0)

    def begin(self, now: float, area: float, in_flight: int) -> None:
        """Start from one request, knowing nothing of the server."""
        self.limit = self._base = 1
        self.version += 1
        self._begun = 0
        self._ceiling: int | None = None
        self._ceiling_left = 0
        self._ceiling_epochs = 32
        self._pauses = 0
        self._trial: _Trial | None = None
        self._rates: deque[float] = deque(maxlen=6)
        self._doubling = True
        self._margin = True
        self._upward = True
        self._down_factor = 1.5
        self._hold = self._wait = 1
        self._epoch = _Epoch(now, area, in_flight, in_flight)
        self._fresh = _Epoch(now, area)

    @property
    def pauses(self) -> int:
        """Cuts without a whole epoch between them."""
        return self._pauses

    def place(self, now: float) -> Place:
        """A request begins."""
        self._begun += 1
        return Place(now, self.version)

    def ended(self, place: Place) -> None:
        """A request has ended, in whichever way."""
        if place.version == self.version:
            self._begun -= 1

    def refused(self, place: Place, now: float, area: float, in_flight: int) -> bool:
        """Cut the limit, unless the request was sent before the last cut. True if it was cut."""
        if place.version < self._cut_version:
            return False
        self._pauses += 1
        self._ceiling = max(2, self.limit)
        self._ceiling_left = self._ceiling_epochs
        self._ceiling_epochs = min(self._ceiling_epochs * 2, 512)
        trying = self._trial is not None and self.limit > self._base
        self._base = self._base if trying else max(1, int(self.limit * 0.7))
        self._settle(hold=4)
        self._doubling = False
        self._margin = False
        self._change(self._base, now, area, in_flight)
        self._cut_version = self.version
        return True

    def completed(self, place: Place, work: float, now: float, area: float, in_flight: int) -> None:
        """Count one completed request (still in ``in_flight``), and decide when it is time."""
        seconds = now - place.began
        trial = self._trial
        if trial is not None and trial.factor >= 2 and place.version == self.version:
            self._fresh.add(work, seconds)
            if not trial.rates and self._fresh.count >= self.limit and self._plainly(now, area):
                self._next(now, area, in_flight)
                return
        epoch = self._epoch
        if epoch.skip > 0:
            epoch.skip -= 1
            # Long ones that began under the limit before would still bring its time of stay along.
            left = in_flight - self._begun
            if epoch.skip <= epoch.extra and left <= self.limit // 32:
                epoch.skip = 0
            if epoch.skip == 0:
                epoch.began, epoch.area = now, area
            return
        epoch.add(work, seconds)
        enough = epoch.count >= _completions(self.limit)
        if not enough and (epoch.count < self.limit or now - epoch.began < _SLOW):
            return
        rate = epoch.rate(now, area, self.limit)
        self._epoch = _Epoch(now, area)
        self._pauses = 0
        if self._ceiling is not None:
            self._ceiling_left -= 1
            if self._ceiling_left <= 0:
                self._ceiling = None
        if self._trial is None:
            self._held(rate)
        else:
            self._tried(self._trial, rate)
        self._next(now, area, in_flight)

    def _plainly(self, now: float, area: float) -> bool:
        """Whether a doubled limit pays before its epoch is over, so that slow servers start fast.

        The first requests under a new limit find a shorter queue than later ones and seem up to a
        third too fast, so the gain has to be larger than that.
        """
        rate = self._fresh.rate(now, area, self.limit)
        if rate is None or rate - self._mean() < math.log(1.6):
            return False
        # Few and maybe short requests: no more than what so many places can bring.
        self._adopt([min(rate, self._mean() + math.log(self.limit / self._base))])
        return True

    def _mean(self) -> float:
        return sum(self._rates) / len(self._rates)

    def _held(self, rate: float | None) -> None:
        """An epoch under the present limit is over."""
        if rate is None:
            return
        if not self._changed(rate, self._rates):
            self._learn(rate, self._rates)
            self._rates.append(rate)
            self._wait -= 1

    def _changed(self, rate: float, before: Sequence[float]) -> bool:
        """Whether the server is not what it was: then the search begins anew from this limit."""
        if not before:
            return False
        difference = rate - sum(before) / len(before)
        spread = math.sqrt(self._variance(self.limit) * (1 + 1 / len(before)))
        if abs(difference) < max(0.2, 4 * spread):
            return False
        # Measured anew before anything is made of it: this epoch may be half and half.
        self._settle(hold=1)
        self._doubling = True
        self._upward = difference > 0
        self._down_factor = 2.0
        return True

    def _learn(self, rate: float, before: Sequence[float]) -> None:
        """Learn from two epochs under the same limit how much they scatter."""
        if before:
            self._compared += 1
            weight = max(0.1, 1 / (self._compared + 1))
            square = (rate - before[-1]) ** 2 / 2 * _completions(self.limit)
            self._scatter += weight * (square - self._scatter)

    def _variance(self, limit: int) -> float:
        """Expected variance of an epoch's (logarithmic) rate."""
        return max(self._scatter / _completions(limit), _LEAST_SCATTER**2)

    def _tried(self, trial: _Trial, rate: float | None) -> None:
        """An epoch of a trial is over, under the one limit or the other."""
        if rate is None:
            self._reject(trial)
            return
        before = self._rates if self.limit == self._base else trial.rates
        if self._changed(rate, before):
            return
        if before is self._rates:
            self._learn(rate, before)
            self._rates.append(rate)
            return
        self._learn(rate, trial.rates)
        trial.rates.append(rate)
        tries = len(trial.rates)
        gain = sum(trial.rates) / tries - self._mean()
        worth = math.log(trial.limit / self._base) * (_WORTH if trial.factor > 1 else _LOSS)
        error = math.sqrt(
            self._variance(trial.limit) / tries + self._variance(self._base) / len(self._rates)
        )
        most = _MAX_PAIRS
        if trial.fast:
            most = 2 if trial.limit > 8 else 4
        # In doubt the shorter queue: what is wrongly given up is soon found again.
        likely = gain > max(worth, error) if trial.factor > 1 else gain + 0.25 * error > worth
        if gain - _SURE * error > worth or (tries >= most and likely):
            self._adopt(trial.rates)
        elif tries >= most or gain + _SURE * error < worth:
            self._reject(trial)

    def _adopt(self, rates: list[float]) -> None:
        """Stay with the limit on trial, and go on in the same direction."""
        up = self.limit > self._base
        self._base = self.limit
        self._margin = self._margin or (up and self._doubling)
        self._settle(hold=0)
        self._rates.extend(rates)
        self._upward = up
        if up or self._down_factor < 1.5:
            self._down_factor = 1.5

    def _reject(self, trial: _Trial) -> None:
        """Go back to the limit before, or a little above it at the end of a series of doublings."""
        up = trial.limit > self._base
        hold = min(self._hold * 2, _LONGEST_HOLD)
        rates = list(self._rates)
        if up and self._margin:
            self._base = min(math.ceil(1.25 * self._base) + 1, trial.limit)
            rates, hold = [], 2
        elif not up:
            self._down_factor = 1.5 if self._down_factor > 1.5 else 1.25
        self._settle(hold=hold)
        self._rates.extend(rates)
        self._doubling = self._margin = False
        self._upward = not up

    def _settle(self, *, hold: int) -> None:
        self._trial = None
        self._rates.clear()
        self._wait = hold
        self._hold = max(hold, 1)

    def _next(self, now: float, area: float, in_flight: int) -> None:
        """Take the limit that is to be measured next."""
        trial = self._trial
        if trial is None and self._wait <= 0:
            trial = self._trial = self._propose()
        if trial is None:
            limit = self._base
        elif trial.fast or not trial.rates:
            limit = trial.limit
        else:
            limit = self._base if self.limit == trial.limit else trial.limit
        if limit != self.limit:
            self._change(limit, now, area, in_flight)

    def _propose(self) -> _Trial | None:
        """The next limit to try; None when there is none to either side."""
        for up in (self._upward, not self._upward):
            if up:
                factor = 2.0 if self._doubling else 1.5
                limit = min(math.ceil(self._base * factor), self._maximum)
                if self._ceiling is not None:
                    limit = min(limit, (self._base + self._ceiling) // 2)
                if limit > self._base:
                    return _Trial(limit, factor)
            else:
                # Two at least, lest it go unseen that the server could do more than one.
                limit = max(2, int(self._base / self._down_factor))
                if limit < self._base:
                    return _Trial(limit, 1 / self._down_factor)
            self._doubling = False
        self._wait = self._hold = _LONGEST_HOLD
        return None

    def _change(self, limit: int, now: float, area: float, in_flight: int) -> None:
        self.limit = limit
        self.version += 1
        self._begun = 0
        skip = max(limit, in_flight)
        self._epoch = _Epoch(now, area, 2 * skip, skip)
        self._fresh = _Epoch(now, area)
