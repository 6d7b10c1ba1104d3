"""Sizes in decimal and binary units."""

import pytest

from warpctl.cli.sizes import parse_size
from warpctl.errors import UserError


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("1", 1), ("300B", 300), ("4GiB", 4 * 1024**3), ("4Gi", 4 * 1024**3), ("5GB", 5 * 10**9), ("5g", 5 * 10**9),
     ("1.5 MB".replace(" ", ""), 1_500_000), (" 2KiB ", 2048)],
)  # fmt: skip
def test_a_size_is_a_number_and_a_unit(text: str, num_bytes: int) -> None:
    assert parse_size(text, option="--memory") == num_bytes


@pytest.mark.parametrize("text", ["", "much", "-1", "0", "1TB", "1 GB", "GiB", "1e9"])
def test_anything_else_names_the_option(text: str) -> None:
    with pytest.raises(UserError, match="--memory must be a size"):
        parse_size(text, option="--memory")
