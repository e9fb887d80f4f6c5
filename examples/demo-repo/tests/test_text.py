from textkit import chunks, slugify, truncate


def test_slugify():
    assert slugify("  Hello, World!  ") == "hello-world"


def test_truncate():
    assert truncate("short", 10) == "short"
    assert truncate("a rather long text", 11) == "a rather..."


def test_chunks():
    assert chunks([1, 2, 3, 4], 2) == [[1, 2], [3, 4]]
    assert chunks([], 3) == []


def test_chunks_keep_a_short_rest():
    assert chunks([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    assert chunks([1], 4) == [[1]]
    assert chunks([1, 2, 3], 1) == [[1], [2], [3]]
