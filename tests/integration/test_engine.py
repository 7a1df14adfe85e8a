"""The engine process with real models: one that has learnt nothing, and one that can sort."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.engine import product, training
from tests.engine.documents import documents
from tests.engine.gguf_model import Shape, chat, random_weights, write_random
from tests.engine.server import Engine, engine, start, stop

from doc_classify.classification.llamacpp_server import EngineConfig

pytest.importorskip("xllamacpp")

SYSTEM, USER = "You sort documents.", "An invoice over 2,000 €."
MESSAGES = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
GREEDY = {"messages": MESSAGES, "max_tokens": 8, "temperature": 0}
SCHEMA = product.PROMPT.by_json.schema


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engine") / "random.gguf"
    write_random(path, seed=1)
    return path


@pytest.fixture(scope="module")
def random_engine(random_model: Path) -> Iterator[Engine]:
    with engine(random_model, parallel=2, context=512) as serving:
        yield serving


@pytest.fixture(scope="module")
def sorting_engine() -> Iterator[Engine]:
    with engine(product.product_model(), parallel=4, context=2048) as serving:
        yield serving


def call(
    serving: Engine, path: str, body: dict | None = None, key: str | None = None
) -> tuple[int, dict]:
    connection = http.client.HTTPConnection(serving.base_url.removeprefix("http://"), timeout=60)
    try:
        connection.request(
            "GET" if body is None else "POST",
            path,
            None if body is None else json.dumps(body),
            {"Authorization": f"Bearer {key or serving.api_key}"},
        )
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def ask(serving: Engine, prompt: tuple[str, str], **more: object) -> dict:
    system, user = prompt
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    status, reply = call(serving, "/v1/chat/completions", {**GREEDY, "messages": messages, **more})
    assert status == 200, reply
    return reply


def json_schema(schema: object) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def test_a_chat_completion_with_log_probabilities(random_engine: Engine) -> None:
    body = {**GREEDY, "logprobs": True, "top_logprobs": 3}
    status, reply = call(random_engine, "/v1/chat/completions", body)

    assert status == 200
    tokens = reply["choices"][0]["logprobs"]["content"]
    assert len(tokens) == reply["usage"]["completion_tokens"] <= 8
    for token in tokens:
        chances = [other["logprob"] for other in token["top_logprobs"]]
        assert len(chances) == 3
        assert chances == sorted(chances, reverse=True)
        assert token["logprob"] == chances[0] < 0


def test_what_all_prompts_begin_with_is_read_once(random_engine: Engine) -> None:
    first = ask(random_engine, (SYSTEM * 5, USER))["usage"]
    again = ask(random_engine, (SYSTEM * 5, USER + " And more."))["usage"]

    # The prompt's tokens are counted with those that were not read again.
    assert again["prompt_tokens"] > first["prompt_tokens"] > len(SYSTEM) * 5
    assert again["prompt_tokens_details"]["cached_tokens"] > len(SYSTEM) * 5


def test_a_prompt_that_is_too_long_is_refused_and_not_cut(random_engine: Engine) -> None:
    messages = [{"role": "user", "content": "x" * 600}]
    status, reply = call(random_engine, "/v1/chat/completions", {**GREEDY, "messages": messages})

    # {"error": {"code": 400,
    #            "message": "request (628 tokens) exceeds the available context size (512 tokens),
    #                        try increasing it",
    #            "type": "exceed_context_size_error", "n_prompt_tokens": 628, "n_ctx": 512}}
    assert status == 400
    assert reply["error"]["type"] == "exceed_context_size_error"
    assert reply["error"]["n_prompt_tokens"] > 600
    assert reply["error"]["n_ctx"] == 512


def test_every_slot_has_the_whole_context_at_the_same_time(random_engine: Engine) -> None:
    messages = [{"role": "user", "content": "x" * 440}]
    body = {**GREEDY, "messages": messages, "max_tokens": 1000, "ignore_eos": True}
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(call, random_engine, "/v1/chat/completions", body) for _ in range(2)]
        replies = [each.result() for each in asked]

    for status, reply in replies:
        assert status == 200
        assert reply["usage"]["total_tokens"] == 512
        assert reply["choices"][0]["finish_reason"] == "length"


def test_a_schema_is_kept_by_a_model_that_has_learnt_nothing(random_engine: Engine) -> None:
    body = {**GREEDY, "max_tokens": 200, "response_format": json_schema(SCHEMA)}
    status, reply = call(random_engine, "/v1/chat/completions", body)

    assert status == 200
    answer = json.loads(reply["choices"][0]["message"]["content"])
    assert list(answer) == ["category"]
    assert answer["category"] in training.CATEGORIES


def test_a_wrong_key_is_refused(random_engine: Engine) -> None:
    status, reply = call(random_engine, "/v1/chat/completions", GREEDY, key="guessed")

    assert (status, reply["error"]["type"]) == (401, "authentication_error")


def test_documents_that_are_being_read_are_not_shown(random_engine: Engine) -> None:
    assert call(random_engine, "/slots")[0] == 501
    assert call(random_engine, "/")[0] == 404


def test_more_connections_than_slots(random_engine: Engine) -> None:
    address = random_engine.base_url.removeprefix("http://")
    idle = [http.client.HTTPConnection(address, timeout=60) for _ in range(30)]
    try:
        for each in idle:
            each.request("GET", "/health")
            each.getresponse().read()
        started = time.monotonic()
        assert call(random_engine, "/health") == (200, {"status": "ok"})
        assert time.monotonic() - started < 2
    finally:
        for each in idle:
            each.close()


def test_it_ends_when_its_input_does_whatever_it_is_doing(random_model: Path) -> None:
    with engine(random_model, parallel=1, context=16384) as serving:
        body = {**GREEDY, "max_tokens": 16000, "ignore_eos": True}
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(call, serving, "/v1/chat/completions", body)
            time.sleep(0.2)
            assert stop(serving.process) == 0
            with pytest.raises((ConnectionError, http.client.HTTPException)):
                answer.result(20)


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
def test_the_key_is_not_on_its_command_line(random_engine: Engine) -> None:
    process = Path(f"/proc/{random_engine.process.pid}")

    assert b"llamacpp_server" in (process / "cmdline").read_bytes()
    for name in ("cmdline", "environ"):
        assert random_engine.api_key.encode() not in (process / name).read_bytes()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no model file"),
        (b"no model at all", "invalid magic characters: 'no m', expected 'GGUF'"),
        (b"GGUF", "cannot load the model"),
    ],
)
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)

    process, told = start(EngineConfig(str(path), 512, 1, 1, 0, "key"))

    assert stop(process) == 1
    assert list(told) == ["error"]
    assert reason in told["error"]
    assert "\n" not in told["error"]


def test_half_a_model(tmp_path: Path, random_model: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(random_model.read_bytes()[:100_000])

    process, told = start(EngineConfig(str(path), 512, 1, 1, 0, "key"))

    assert stop(process) == 1
    assert "cannot load the model" in told["error"]


def test_an_engine_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", os.fspath(tmp_path))

    process, told = start(EngineConfig("model.gguf", 512, 1, 1, 0, "key"))

    assert stop(process) == 1
    assert "pip install 'doc-classify[llamacpp]'" in told["error"]


def test_the_gradient_is_that_of_the_loss() -> None:
    rng = np.random.default_rng(0)
    weights = {
        name: each.astype(np.float64) + rng.normal(0, 0.1, each.shape)
        for name, each in random_weights(Shape(8, 2, 12, 1), 20, rng).items()
    }
    examples = [([1, 2, 3, 4, 2], [5, 6]), ([1, 2, 3, 7], [8]), ([1, 2, 9, 3, 4], [10, 6, 1])]
    batch = training.Batch.of(examples)
    _, gradient = training.loss_and_gradient(weights, 2, batch)

    for name, each in weights.items():
        slopes = np.zeros_like(each)
        for place in np.ndindex(each.shape):
            value, losses = each[place], []
            for step in (1e-5, -1e-5):
                each[place] = value + step
                losses.append(training.loss_and_gradient(weights, 2, batch)[0])
            each[place] = value
            slopes[place] = (losses[0] - losses[1]) / 2e-5
        assert np.abs(slopes).max() > 1e-3
        np.testing.assert_allclose(gradient[name], slopes, atol=1e-6, err_msg=name)


def test_the_engine_sees_the_tokens_that_were_trained(random_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "words.gguf"
    words = [word for word in product.PROMPT.system.split() for word in (word, f" {word}")]
    vocabulary = write_random(path, seed=1, words=words)
    odd = "I'll pay 12345 €,\r\n\n  it's  DUE!?\t_x_ Größe naïve — 你好 ½\n\n"
    prompts = [product.by_name(text) for _, text in documents(11, 14)] + [(odd, USER), (USER, odd)]

    with engine(path, parallel=1) as serving:
        for system, user in prompts:
            messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
            _, applied = call(serving, "/apply-template", {"messages": messages})
            assert applied["prompt"] == chat(system, user)
            body = {"content": applied["prompt"], "parse_special": True}
            _, found = call(serving, "/tokenize", body)
            assert found["tokens"] == vocabulary.encode(applied["prompt"])


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        (product.by_name, product.PROMPT.by_name),
        (product.by_json, product.PROMPT.by_json),
        (product.with_reasoning, product.PROMPT.with_reasoning),
    ],
)
def test_a_trained_model_sorts_documents_that_it_has_not_seen(
    sorting_engine: Engine, prompt: object, question: object
) -> None:
    more = {"max_tokens": question.max_tokens}
    if question.schema is not None:
        more["response_format"] = json_schema(question.schema)

    def category(text: str) -> str:
        answer = ask(sorting_engine, prompt(text), **more)["choices"][0]["message"]["content"]
        return answer if question.schema is None else json.loads(answer)["category"]

    found = list(documents(987_654_321, 105))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(category, [text for _, text in found]))

    right = sum(a == b for a, (b, _) in zip(answers, found, strict=True))
    assert right / len(found) > 0.95
