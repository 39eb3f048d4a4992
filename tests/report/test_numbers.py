import pytest

from lorafy.metrics import numbers


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (numbers.percent, 0.975, "97.5 %"),
        (numbers.percent, 1.0, "100.0 %"),
        (numbers.percent, 0.0, "0.0 %"),
        (numbers.percent, 0.9999, ">99.9 %"),
        (numbers.percent, 0.0001, "<0.1 %"),
        (numbers.percent, None, "–"),
        (numbers.interval, [0.951, 0.988], "95.1 to 98.8 %"),
        (numbers.perplexity, 6.7512, "6.75"),
        (numbers.perplexity, 9.996, "10.0"),
        (numbers.perplexity, 99.96, "100"),
        (numbers.perplexity, 51_234.6, "51,235"),
        (numbers.perplexity, None, "–"),
        (numbers.score, 21.34, "21.3"),
        (numbers.size, 0, "0 B"),
        (numbers.size, 2_400_000, "2.3 MiB"),
        (numbers.size, 2**30, "1.0 GiB"),
        (numbers.size, 2**30 - 1, "1.0 GiB"),
        (numbers.size, 80 * 2**40, "80.0 TiB"),
        (numbers.duration, 0.84, "0.84 s"),
        (numbers.duration, 59.96, "1 min 00 s"),
        (numbers.duration, 192, "3 min 12 s"),
        (numbers.duration, 7500, "2 h 05 min"),
        (numbers.duration, 3599.9, "1 h 00 min"),
        (numbers.short_count, 9_999, "9,999"),
        (numbers.short_count, 600_000, "600 k"),
        (numbers.short_count, 999_990, "1.0 M"),
        (numbers.short_count, 7_241_732_096, "7.2 G"),
        (numbers.count, 23_000_000, "23,000,000"),
        (numbers.figure, 1e-4, "0.0001"),
        (numbers.figure, True, "yes"),
    ],
)
def test_a_figure_reads_as_written_here(write, value, text):
    assert write(value) == text
