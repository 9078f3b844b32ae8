"""Tokens, rates and their limits, without a socket."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="needs the extra [serve]")

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.serving.limits import Limits, RateLimit, Tokens, retry_after
from effovpr_ros.serving.running import Address


def test_a_client_may_ask_twice_its_rate_at_once_and_then_its_rate():
    now_s = [100.0]
    limit = RateLimit(2.0, lambda: now_s[0])
    assert [limit.wait_s("a") for _ in range(5)] == [0.0] * 4 + [0.5]
    # Another one has a bucket of its own.
    assert limit.wait_s("b") == 0.0
    now_s[0] += 0.5
    assert [limit.wait_s("a") for _ in range(2)] == [0.0, 0.5]
    # It never holds more than four.
    now_s[0] += 1000.0
    assert sum(limit.wait_s("a") == 0.0 for _ in range(10)) == 4
    assert RateLimit(0.0).wait_s("a") == 0.0
    assert (retry_after(0.2), retry_after(1.2)) == ("1", "2")


def test_a_slow_rate_lets_one_in_at_once():
    limit = RateLimit(0.1, lambda: 0.0)
    assert [limit.wait_s("a"), limit.wait_s("a")] == [0.0, 10.0]


@pytest.mark.parametrize(
    ("header", "opens"),
    [
        ("Bearer 0123456789abcdef", True),
        ("bearer  0123456789abcdef ", True),
        ("Bearer fedcba9876543210", True),
        ("Bearer 0123456789abcde", False),
        ("Bearer 0123456789abcdeff", False),
        ("Basic 0123456789abcdef", False),
        ("Bearer", False),
        ("", False),
        ("Bearer \xe9\xe9\xe9\xe9", False),
    ],
)
def test_a_token_opens(header: str, opens: bool):
    assert Tokens(["0123456789abcdef", "fedcba9876543210"]).opens(header) is opens


def test_no_token_at_all_opens_for_everybody_and_a_short_one_is_refused():
    assert Tokens([]).opens("")
    with pytest.raises(ConfigError, match="fewer than 16 characters"):
        Tokens(["secret"])


@pytest.mark.parametrize("wrong", [{"rate_hz": -1.0}, {"max_waiting": 0}, {"answer_timeout_s": float("nan")}])
def test_impossible_limits_are_refused(wrong: dict[str, float]):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Limits(**wrong)


def test_an_address_that_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="needs both"):
        Address(tls_cert="cert.pem")
    with pytest.raises(ConfigError, match="cannot be used: No such file"):
        Address(tls_cert=str(tmp_path / "cert.pem"), tls_key=str(tmp_path / "key.pem"))
    with pytest.raises(ConfigError, match="port 70000"):
        Address(port=70000)
    assert Address("127.0.0.1").is_loopback and Address("localhost").is_loopback and not Address("0.0.0.0").is_loopback
