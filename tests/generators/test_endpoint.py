"""A client that gets every answer it can from a server that misbehaves, and never tells its key."""

from __future__ import annotations

import json
import threading
import time

import pytest

from plot_exp.config.endpoint import EndpointConfig
from plot_exp.data.examples import Message
from plot_exp.errors import RunError, UserError
from plot_exp.generators import endpoint
from plot_exp.generators.base import Completion, Sampling
from plot_exp.generators.endpoint import EndpointGenerator

from fake_server import Reply, chat, serving

KEY = "sk-very-secret-0123456789"


def dialogue(text):
    return (Message("user", text),)


def echo(seen, number):
    return chat(f"you said {seen.body['messages'][-1]['content']}")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("TEST_KEY", KEY)


def client(server, tmp_path=None, **changes):
    settings = {"url": server.url, "model": "judge", "key_variable": "TEST_KEY", "timeout": 5}
    return EndpointGenerator(EndpointConfig(**(settings | changes)), tmp_path)


def test_answers_come_in_the_order_of_the_prompts_with_the_settings_sent():
    sampling = Sampling(0.7, 0.9, 33, ("END",), seed=4, presence_penalty=0.1)
    with serving(echo) as server:
        prompts = [(Message("system", "be brief"), Message("user", str(n))) for n in range(40)]
        done = []
        found = client(server)(prompts, sampling, samples=2, each=lambda *row: done.append(row))
    assert [[one.text for one in row] for row in found] == [
        [f"you said {n}"] * 2 for n in range(40)
    ]
    assert sorted(done, key=lambda row: row[0]) == list(enumerate(found))
    assert len(server.seen) == 80
    assert 1 < server.most_at_once <= 8
    body = server.seen[0].body
    assert body["messages"][0] == {"role": "system", "content": "be brief"}
    assert (body["model"], body["temperature"], body["top_p"]) == ("judge", 0.7, 0.9)
    assert (body["max_tokens"], body["stop"], body["presence_penalty"]) == (33, ["END"], 0.1)
    assert "frequency_penalty" not in body
    assert len({seen.body["seed"] for seen in server.seen}) == 2
    assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"


def test_text_and_ids_are_continued_without_a_chat_template():
    with serving(lambda seen, _: {"choices": [{"text": " 42 END more"}]}) as server:
        found = client(server)(["6 x 7 =", [5, 6]], Sampling(stop=("END",)))
    assert [row[0].text for row in found] == ["42", "42"]
    assert {seen.path for seen in server.seen} == {"/v1/completions"}
    assert sorted(map(str, (seen.body["prompt"] for seen in server.seen))) == ["6 x 7 =", "[5, 6]"]


TROUBLES = {
    "too many": Reply({"error": {"message": "slow down", "code": "rate_limit"}}, 429),
    "overloaded": Reply("<html>bad gateway</html>", 502),
    "broken": Reply({"error": {"message": "sorry"}}, 500),
    "truncated": Reply('{"choices": [{"mess'),
    "cut off": Reply('{"choices": [', promised=500),
    "nonsense": Reply("all is well"),
    "empty": Reply(""),
    "no choices": Reply({"choices": []}),
    "a list": Reply([1, 2]),
    "null choice": Reply({"choices": [None]}),
    "error in success": Reply({"error": {"message": "engine crashed"}}),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_may_pass_is_asked_again(trouble):
    def answer(seen, number):
        return TROUBLES[trouble] if number < 2 else echo(seen, number)

    with serving(answer) as server:
        found = client(server, concurrency=1)([dialogue("a"), dialogue("b")])
    assert [row[0].text for row in found] == ["you said a", "you said b"]
    assert len(server.seen) == 4


@pytest.mark.parametrize("stall", [Reply(chat("late"), delay=3), Reply(chat("slow"), drip=0.05)])
def test_a_server_that_stalls_is_left_in_time(stall):
    def answer(seen, number):
        return stall if number == 0 else echo(seen, number)

    started = time.monotonic()
    with serving(answer) as server:
        ((found,),) = client(server, timeout=0.3)([dialogue("a")])
        assert time.monotonic() - started < 2
    assert found.text == "you said a"


def test_the_server_says_how_long_to_wait():
    def answer(seen, number):
        if number == 0:
            return Reply({"error": "busy"}, 429, {"Retry-After": "0.4"})
        if number == 1:
            return Reply({"error": "busy"}, 503, {"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"})
        return Reply({"error": "busy"}, 503, {"Retry-After": "soon"}) if number == 2 else chat("ok")

    with serving(answer) as server:
        client(server, longest_wait=0.6)([dialogue("a")])
    gaps = [
        later.at - earlier.at for earlier, later in zip(server.seen, server.seen[1:], strict=False)
    ]
    assert 0.4 <= gaps[0] < 0.6
    assert 0.6 <= gaps[1] < 0.9, "an absurd date is held to longest_wait"
    assert gaps[2] < 0.4


def test_failure_for_good_is_one_sentence_and_what_was_answered_is_kept(tmp_path):
    broken = threading.Event()
    broken.set()

    def answer(seen, number):
        said = seen.body["messages"][-1]["content"]
        if said in ("3", "7") and broken.is_set():
            return Reply({"error": {"message": f"no luck,\n\n{KEY} is fine"}}, 500)
        return echo(seen, number)

    prompts = [dialogue(str(n)) for n in range(10)]
    with serving(answer) as server:
        with pytest.raises(RunError) as error:
            client(server, tmp_path, retries=1)(prompts)
        assert str(error.value) == (
            f"judge at {server.url}: 2 of 10 requests failed, the last with: HTTP 500: no luck, "
            "[key] is fine; what was answered is kept, and the same command again asks for the rest"
        )
        assert len(server.seen) == 12
        broken.clear()
        again = client(server, tmp_path)
        found = again(prompts)
        assert [row[0].text for row in found] == [f"you said {n}" for n in range(10)]
        assert (len(server.seen), again.requests) == (14, 2)
        assert client(server, tmp_path)(prompts) == found
        assert len(server.seen) == 14
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 10
    assert not any(KEY in path.read_text() for path in files)


def test_other_requests_are_not_taken_from_the_cache(tmp_path):
    with serving(echo) as server:
        for sampling in (
            Sampling(),
            Sampling(max_new_tokens=5),
            Sampling(0.5),
            Sampling(0.5, seed=1),
        ):
            client(server, tmp_path)([dialogue("a")], sampling)
        client(server, tmp_path, model="other")([dialogue("a")])
        client(server, tmp_path)([dialogue("a")], Sampling(0.5), samples=3)
    assert len(server.seen) == 4 + 1 + 2


def test_a_damaged_cache_is_asked_for_again(tmp_path):
    with serving(echo) as server:
        client(server, tmp_path)([dialogue("a")])
        (path,) = (path for path in tmp_path.rglob("*.json"))
        for damage in ("", "{", "[]", '{"answer": {}}', '{"answer": {"choices": [{"text": 5}]}}'):
            path.write_text(damage)
            ((found,),) = client(server, tmp_path)([dialogue("a")])
            assert found.text == "you said a"
        assert (
            "you said a"
            in json.loads(path.read_text())["answer"]["choices"][0]["message"]["content"]
        )
    assert len(server.seen) == 6


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply({"error": {"message": f"Incorrect API key: {KEY}"}}, 401), "key: [key]"),
        (Reply({"error": {"message": "no such model"}}, 404), "no such model"),
        (Reply("", 302, {"Location": "http://127.0.0.1:9/elsewhere"}), "redirects"),
        (
            Reply({"error": {"message": "pay first", "code": "insufficient_quota"}}, 429),
            "pay first",
        ),
    ],
)
def test_what_cannot_pass_ends_at_once(reply, words):
    with serving(lambda *_: reply) as server:
        with pytest.raises(UserError) as error:
            client(server, concurrency=1)([dialogue(str(n)) for n in range(5)])
        assert words in str(error.value)
        assert KEY not in str(error.value)
        assert len(server.seen) <= 2


def test_a_dead_server_is_given_up_after_a_few_requests():
    with serving(lambda *_: Reply("", 500)) as server:
        with pytest.raises(RunError, match="2 requests failed"):
            client(server, concurrency=2, retries=1)([dialogue(str(n)) for n in range(50)])
        assert len(server.seen) <= 8
    with pytest.raises(RunError, match="refused"):
        client(server, retries=1)([dialogue("a")])


def test_a_prompt_that_the_server_will_not_answer_is_filtered():
    def answer(seen, number):
        refused = {"message": "no", "code": "content_filter"}
        if number == 0:
            return Reply({"error": {"innererror": {"code": "ResponsibleAIPolicyViolation"}}}, 400)
        return Reply({"error": refused}, 400) if number == 1 else chat(None, "content_filter")

    with serving(answer) as server:
        found = client(server)([dialogue(str(n)) for n in range(3)])
    assert [row[0] for row in found] == [Completion("", "filtered")] * 3
    assert len(server.seen) == 3


def test_other_forms_of_an_answer_are_read():
    answers = [
        chat(None) | {},
        chat([{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]),
        chat("short", "length"),
        {"choices": [{"message": {"content": None, "refusal": "I will not"}}]},
    ]
    with serving(lambda _, number: answers[number]) as server:
        found = client(server, concurrency=1)([dialogue(str(n)) for n in range(4)])
    assert [row[0].text for row in found] == ["", "in parts", "short", "I will not"]
    assert [row[0].finish for row in found] == ["stop", "stop", "length", "stop"]


def test_log_probabilities_are_read_where_offered():
    likely = [{"token": "m", "logprob": -0.1}, {"token": "M", "logprob": -2.5}]
    content = [{"token": "m", "logprob": -0.1, "top_logprobs": likely}]
    answers = [chat("m", logprobs={"content": content}), chat("m"), chat("m", logprobs=None)]
    with serving(lambda _, number: answers[number]) as server:
        found = client(server, concurrency=1)(
            [dialogue(str(n)) for n in range(3)], Sampling(max_new_tokens=1, top_logprobs=5)
        )
    assert [row[0].top_logprobs for row in found] == [({"m": -0.1, "M": -2.5},), None, None]
    assert (server.seen[0].body["logprobs"], server.seen[0].body["top_logprobs"]) == (True, 5)


def test_without_a_key_none_is_sent(monkeypatch):
    monkeypatch.delenv("TEST_KEY")
    with serving(echo) as server:
        client(server)([dialogue("a")])
    assert "Authorization" not in server.seen[0].headers
    monkeypatch.setenv("TEST_KEY", "bad\nkey")
    with pytest.raises(UserError, match="TEST_KEY") as error:
        client(server)
    assert "bad" not in str(error.value)


@pytest.mark.parametrize("url", ["http://me:pass@host/v1", "https://host/v1?key=a", "host:80", ""])
def test_an_address_with_a_secret_or_without_a_scheme_is_refused(url):
    with pytest.raises(ValueError, match="must"):
        EndpointConfig(url=url)
    with pytest.raises(UserError, match="url"):
        EndpointGenerator(EndpointConfig(model="judge"))


def test_what_each_raises_ends_the_asking():
    def stop(*_):
        raise KeyboardInterrupt

    with serving(echo) as server:
        with pytest.raises(KeyboardInterrupt):
            client(server, concurrency=1)([dialogue(str(n)) for n in range(500)], each=stop)
        time.sleep(0.1)
        assert len(server.seen) < 400
