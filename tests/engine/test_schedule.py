"""Learning rates against mmcv's own for the authors' models, and by hand."""

from collections.abc import Callable

import pytest

from rfla.engine.schedule import Schedule, capped_warmup, scaled_steps


def test_rates_of_the_authors_runs(parity: Callable) -> None:
    """LR values that mmcv's LrUpdaterHook gave, at 1000 iterations an epoch."""
    manifest, _ = parity("optim")
    for case in manifest["cases"]:
        config = case["lr_config"]
        schedule = Schedule(
            epochs=12,
            iterations_per_epoch=1000,
            steps=config["step"],
            warmup_iterations=config["warmup_iters"],
            warmup_ratio=config["warmup_ratio"],
            warmup=config["warmup"],
        )
        rate = case["optimizer"]["lr"]
        for iteration, expected in case["lr_curve_1000_iters_per_epoch"].items():
            assert rate * schedule.factor(int(iteration)) == pytest.approx(expected, rel=1e-9), (
                case["model"],
                iteration,
            )


@pytest.mark.parametrize(
    ("iteration", "factor"),
    [
        (0, 1.0),  # cos 0
        (50, 0.505),  # half way: (1 + 0.01) / 2
        (100, 0.01),
        (150, 0.01),  # past the end
    ],
)
def test_cosine(iteration: int, factor: float) -> None:
    schedule = Schedule(
        epochs=10, iterations_per_epoch=10, cosine=True, final=0.01, warmup_iterations=0
    )
    assert schedule.factor(iteration) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("iteration", "time_share", "factor"),
    [
        (50, 0.25, 0.505),  # the iterations are ahead
        (25, 0.5, 0.505),  # the clock is
        (0, 1.2, 0.01),  # the time is over
    ],
)
def test_cosine_by_the_clock(iteration: int, time_share: float, factor: float) -> None:
    schedule = Schedule(
        epochs=10, iterations_per_epoch=10, cosine=True, final=0.01, warmup_iterations=0
    )
    assert schedule.factor(iteration, time_share) == pytest.approx(factor)


def test_steps_and_warmup_by_the_clock() -> None:
    """12 epochs with steps at 8 and 11; two thirds of the time are as 8 epochs."""
    schedule = Schedule(epochs=12, iterations_per_epoch=100, warmup_iterations=100)
    shares = (0.0, 0.05, 0.1, 0.66, 0.67, 0.92, 1.0)
    factors = [schedule.factor(0, share) for share in shares]
    assert factors == pytest.approx([0.001, 0.5005, 1.0, 1.0, 0.1, 0.01, 0.01])


def test_linear_warmup_rises_to_one() -> None:
    schedule = Schedule(epochs=12, iterations_per_epoch=100, warmup_iterations=10, warmup_ratio=0.1)
    assert [schedule.factor(i) for i in (0, 5, 10)] == pytest.approx([0.1, 0.55, 1.0])


def test_warmup_is_never_longer_than_a_tenth() -> None:
    assert (capped_warmup(5000, 300), capped_warmup(500, 67_000)) == (30, 500)


@pytest.mark.parametrize(
    ("epochs", "steps"), [(24, (16, 22)), (12, (8, 11)), (3, (2, 3)), (1, (1,))]
)
def test_steps_of_another_length(epochs: int, steps: tuple[int, ...]) -> None:
    assert scaled_steps((8, 11), 12, epochs) == steps
