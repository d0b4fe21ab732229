"""Numbers as people write them."""

from __future__ import annotations

import pytest

from compress.errors import InputError
from compress.recipe.quantity import count, fraction, share, size


@pytest.mark.parametrize(
    ("text", "value"),
    [("100M", 100e6), ("1.5B", 1.5e9), ("800000", 8e5), ("2k", 2000), (" 1g ", 1e9), ("2.5e9", 2.5e9)],
)
def test_counts(text, value):
    assert count("--params", text) == value


def test_the_last_b_of_a_size_is_a_byte():
    assert size("--bytes", "200MB") == 200e6 and size("--bytes", "500B") == 500 and size("--bytes", "1.5G") == 1.5e9


def test_shares():
    assert share("--remove", "30%") == pytest.approx(0.3) and share("--remove", ".3") == 0.3
    assert fraction("--end", "100%") == 1 and fraction("--start", "0") == 0


@pytest.mark.parametrize(
    ("read", "text"), [(count, "many"), (count, "0"), (count, "1MB"), (size, "3 %"), (fraction, "-1"), (share, "100%")]
)
def test_what_is_none_names_the_option(read, text):
    with pytest.raises(InputError, match=rf"--here {text}: .*write"):
        read("--here", text)
