"""Settings of time that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator

from doc_classify.doctor.findings import Finding, judged
from doc_classify.settings import Settings

_SWEEPS = 8
_SHORTEST_LEASE = 10.0


def findings(settings: Settings) -> Iterator[Finding]:
    """How the limits of time go together."""
    lease, chunk = settings.lease_seconds, settings.distributed_chunk_size
    longest = chunk * settings.time_limit + settings.stretch_seconds
    advice = []
    if lease < _SHORTEST_LEASE:
        advice.append(
            f"lease_seconds {lease:g}: every worker would look for lost chunks every "
            f"{lease / _SWEEPS:.1f} s, and a short silence would cost it its chunk; 120 is usual"
        )
    if settings.stretch_seconds > lease / 2:
        advice.append(
            f"stretch_seconds {settings.stretch_seconds:g} counts only up to half of lease_seconds "
            f"({lease / 2:g}): lower it, or raise lease_seconds"
        )
    if longest > (visible := visibility_timeout()):
        advice.append(
            f"a chunk may take {longest:,.0f} s (distributed_chunk_size x time_limit + "
            f"stretch_seconds), and after {visible:,.0f} s the broker hands its message to "
            "another worker as well, in vain: lower distributed_chunk_size or time_limit"
        )
    if settings.classifier != "embedded" and settings.llm_timeout > settings.llm_give_up > 0:
        advice.append(
            f"llm_give_up ({settings.llm_give_up:g} s) ends a run while an answer may still take "
            f"llm_timeout ({settings.llm_timeout:g} s): raise the one or lower the other"
        )
    yield judged(
        "time limits",
        f"document {settings.time_limit:g} s, LLM answer {settings.llm_timeout:g} s, lease "
        f"{lease:g} s, chunk at most {longest:,.0f} s, message {visible:,.0f} s",
        *advice,
    )


def visibility_timeout() -> float:
    """Seconds after which Redis hands out a message again that was not acknowledged.

    Source: https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html
    """
    from doc_classify.doctor.services import celery_installed

    if not celery_installed():
        return 3600.0
    from doc_classify.celery_tasks import app

    return float(app.conf.broker_transport_options["visibility_timeout"])
