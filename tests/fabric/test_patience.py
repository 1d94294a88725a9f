"""How long and how often one call is tried."""

import pytest

from orthanc_ledger.ledger.fabric.patience import LEAST_S, PATIENCE_S, Patience


def test_a_request_gets_its_own_deadline_or_what_is_left_but_never_too_little() -> None:
    assert Patience(100.0).deadline(5.0) == 5.0
    assert LEAST_S < Patience(3.0).deadline(5.0) <= 3.0
    assert Patience(0.0).deadline(5.0) == LEAST_S
    assert Patience(0.0).deadline(0.2) == 0.2


def test_without_a_number_it_is_a_persons() -> None:
    assert 0.9 * PATIENCE_S < Patience(None).deadline(100.0) <= PATIENCE_S


def test_pauses_double_up_to_a_second_and_are_shortened_by_a_half_at_most() -> None:
    paused: list[float] = []
    patience = Patience(100.0, paused.append)
    assert all(patience.again() for _ in range(8))
    assert patience.tries == 9
    for pause_s, longest_s in zip(paused, (0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0), strict=True):
        assert longest_s / 2 <= pause_s <= longest_s


@pytest.mark.parametrize("patience_s", [0.0, 0.01])
def test_nothing_is_tried_again_when_the_time_is_over_before(patience_s: float) -> None:
    patience = Patience(patience_s, lambda _: pytest.fail("waited"))
    assert not patience.again()
    assert patience.tries == 1
