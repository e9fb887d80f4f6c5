from textkit import mean, median, mode


def test_mean():
    assert mean([1, 2, 3, 6]) == 3


def test_median_of_odd_count():
    assert median([5, 1, 3]) == 3


def test_median_of_even_count():
    assert median([4, 1, 3, 2]) == 2.5
    assert median([10, 20]) == 15


def test_mode():
    assert mode(["a", "b", "b", "a"]) == "a"
